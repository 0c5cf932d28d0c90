"""Sampling settings and seed of a conversation, changed by the text of `/set`."""

from __future__ import annotations

import re
from contextlib import suppress

from annotated_types import Ge, Gt, Le, Lt
from pydantic import ValidationError

from convo_cli.config.schema import GenerationSettings
from convo_cli.errors import DataError

SAMPLING_KEYS = (
    "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "max_new_tokens",
)  # fmt: skip
"""Keys of `changed_settings`, in the order in which help shows them."""
KEYS = (*SAMPLING_KEYS, "seed")
_NO_SEED = ("", "none", "random")
_WHOLE = re.compile(r"[0-9]{1,19}")
_NUMBER = re.compile(r"[0-9]{1,19}(\.[0-9]{0,30})?|\.[0-9]{1,30}|[0-9](\.[0-9]{1,20})?e-?[0-9]")


def changed_settings(settings: GenerationSettings, key: str, text: str) -> GenerationSettings:
    """Return the settings with one value changed; DataError names the range of the key."""
    if key not in SAMPLING_KEYS:
        raise DataError(f"there is no setting {key!r}", hint=f"one of {', '.join(KEYS)}")
    is_whole = GenerationSettings.model_fields[key].annotation is int
    pattern = _WHOLE if is_whole else _NUMBER
    text = text.strip().lower()
    if pattern.fullmatch(text):
        value = int(text) if is_whole else float(text)
        with suppress(ValidationError):
            return GenerationSettings.model_validate(settings.model_dump() | {key: value})
    raise DataError(
        f"{key}: {text[:40]!r} is not {range_of(key)}",
        hint=f"such as {getattr(settings, key):g}",
    )


def parsed_seed(text: str) -> int | None:
    """Return a seed; None for ``none``, after which a sampled reply cannot be repeated."""
    text = text.strip().lower()
    if text in _NO_SEED:
        return None
    if _WHOLE.fullmatch(text) and int(text) < 2**63:
        return int(text)
    raise DataError(
        f"seed: {text[:40]!r} is not a whole number from 0 to {2**63 - 1:,}", hint="or none"
    )


def range_of(key: str) -> str:
    """Describe the values that a setting may have."""
    field = GenerationSettings.model_fields[key]
    kind = "a whole number" if field.annotation is int else "a number"
    limits = []
    for bound in field.metadata:
        if isinstance(bound, Ge):
            limits.append(f"from {bound.ge:,.10g}")
        elif isinstance(bound, Gt):
            limits.append(f"above {bound.gt:,.10g}")
        elif isinstance(bound, Le):
            limits.append(f"to {bound.le:,.10g}")
        elif isinstance(bound, Lt):
            limits.append(f"to below {bound.lt:,.10g}")
    return f"{kind} {' '.join(limits)}"
