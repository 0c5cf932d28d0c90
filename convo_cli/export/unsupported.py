"""Refusals of unsupported exports before any work: by options and by the checkpoint's files alone.

Nothing here imports torch. Every refusal says what the format holds, and which formats hold the
model.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from convo_cli.errors import ModelError, UsageError, first_line
from convo_cli.export.format import About, Dtype
from convo_cli.export.formats import FORMATS
from convo_cli.export.tokenizer_kinds import TokenizerKind, tokenizer_json_kind
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.model_folder import DIALOGUE_FILE
from convo_cli.storage.files import read_file
from convo_cli.storage.foreign_files import (
    ADAPTER_BASE,
    ADAPTER_CONFIG,
    MAX_CONFIG_BYTES,
    MAX_TEXT_BYTES,
)
from convo_cli.wording import quoted

_OTHER_DTYPES: dict[str, tuple[str, ...]] = {
    "fp32": ("f32", "float32", "float", "full"),
    "fp16": ("f16", "float16", "half"),
    "bf16": ("bfloat16",),
    "q8_0": ("q8", "8bit"),
    "int8": ("i8",),
}
"""What other programs call the types of weights."""
_Answer = TypeVar("_Answer")
_CUTOFF = 0.6
_LONGEST = 60  # characters of a text of config.json in a message


class _Model(NamedTuple):
    """What decides whether a format can hold a checkpoint; None for a file that is unreadable."""

    config: Mapping[str, Any] | None
    tokenizer: TokenizerKind | None
    tokenizer_json: Mapping[str, Any] | None
    is_adapter: bool
    max_length: int | None
    """Tokens of the longest dialogue."""


def require_options(
    name: str, dtype: str | None = None, *, max_shard_bytes: int | None = None
) -> tuple[About, Dtype]:
    """Return a format and its type of weights; UsageError for options that do not fit together.

    Also raised if a package that writes the format is not installed.
    """
    if (form := FORMATS.get(name)) is None:
        raise UsageError(
            f"--format {quoted(name)}: there is no such format",
            hint=_suggested(
                name,
                {known: one.about().other_names for known, one in FORMATS.items()},
                "--format",
            ),
        )
    about = form.about()
    wanted = about.dtypes[0] if dtype is None else dtype
    chosen = next((one for one in about.dtypes if one == wanted), None)
    if chosen is None:
        others = [other for other, one in FORMATS.items() if wanted in one.about().dtypes]
        raise UsageError(
            f"--dtype {quoted(wanted)}: --format {name} writes {_listed(about.dtypes, 'or')}",
            hint=f"formats that write {wanted}: {', '.join(others)}"
            if others
            else _suggested(
                wanted, {known: _OTHER_DTYPES[known] for known in about.dtypes}, "--dtype"
            ),
        )
    if max_shard_bytes is not None and not about.shards:
        able = ", ".join(other for other, one in FORMATS.items() if one.about().shards)
        raise UsageError(
            f"--max-shard-size: --format {name} writes one file of weights",
            hint=f"leave it out (formats that split weights: {able})",
        )
    if missing := [module for module in about.writes_with if find_spec(module) is None]:
        raise _missing_package(name, about, missing)
    return about, chosen


def unusable_package(name: str, about: About, error: Exception) -> UsageError:
    """Return the error that a package which writes a format is installed but fails."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return _missing_package(name, about, [error.name])
    packages = _listed(about.writes_with, "and") or "other packages"
    return UsageError(
        f"--format {name} needs {packages}, but what is installed cannot be used "
        f"({first_line(error)})",
        hint=f"pip install --upgrade --force-reinstall {' '.join(about.writes_with)}"
        if about.writes_with
        else None,
    )


def _missing_package(name: str, about: About, modules: Sequence[str]) -> UsageError:
    verb = "is" if len(modules) == 1 else "are"
    return UsageError(
        f"--format {name} cannot be written: {_listed(modules, 'and')} {verb} not installed",
        hint=f'pip install "convo-cli[{about.extra}]"' if about.extra else None,
    )


def require_supported(folder: Path, name: str) -> None:
    """Raise ModelError if a format cannot hold the checkpoint in a folder, or that of a run.

    An unreadable file is passed over: loading the checkpoint reports it.
    """
    run = RunDirectory(folder)
    if run.is_run and (steps := run.checkpoint_steps()):
        folder = run.checkpoint(steps[-1])  # all of a run have one config and one tokenizer
    model = _read(folder)
    if (reason := _objection(name, model)) is None:
        return
    able = [other for other in FORMATS if _objection(other, model) is None]
    raise ModelError(
        f"--format {name} {reason}",
        hint=f"formats that can hold it: {', '.join(able)}" if able else None,
    )


def _objection(name: str, model: _Model) -> str | None:
    about = FORMATS[name].about()
    if not (about.merges or model.is_adapter):
        return "exports the adapter of a run with model.lora, but this is a whole model"
    if model.config is not None:
        kind = model.config.get("model_type")
        if about.architectures is not None and str(kind) not in about.architectures:
            shown = quoted(str(kind), _LONGEST)
            return (
                f"holds models of type {_listed(sorted(about.architectures), 'or')}, but this is "
                f"{shown}"
            )
    if about.tokenizers is not None and model.tokenizer not in (None, *about.tokenizers):
        held = _listed(sorted(about.tokenizers), "or")
        return f"holds tokenizers of kind {held}, but this one is {_kind(model.tokenizer)}"
    if (objection := _asked(about.objection, model.config)) is not None:
        return f"cannot hold this model: {objection}"
    if (objection := _asked(about.tokenizer_objection, model.tokenizer_json)) is not None:
        return f"cannot hold this tokenizer: {objection}"
    window = _asked(about.attention_window, model.config)
    if window is not None and model.max_length is not None and window < model.max_length:
        return (
            f"cannot hold this model: its sliding window of {window:,} tokens is shorter than its "
            f"dialogues, of up to {model.max_length:,}"
        )
    return None


def _asked(
    question: Callable[[Mapping[str, Any]], _Answer | None] | None, values: Mapping[str, Any] | None
) -> _Answer | None:
    """Ask a format about a file; one with other types of values is left to the loading."""
    if question is None or values is None:
        return None
    try:
        return question(values)
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError):
        return None


def _read(folder: Path) -> _Model:
    config = _json(folder / "config.json", MAX_CONFIG_BYTES)
    tokenizer = _json(folder / "tokenizer.json", MAX_TEXT_BYTES)
    kind: TokenizerKind | None = None
    if tokenizer is not None and isinstance(tokenizer.get("model"), dict):
        kind = tokenizer_json_kind(tokenizer)
    contract = _json(folder / DIALOGUE_FILE, MAX_CONFIG_BYTES) or {}
    length = contract.get("max_length")
    # An adapter has the config of its base.
    is_adapter = all((folder / name).is_file() for name in (ADAPTER_CONFIG, ADAPTER_BASE))
    return _Model(
        config,
        kind,
        tokenizer if kind else None,
        is_adapter,
        length if isinstance(length, int) else None,
    )


def _json(file: Path, limit: int) -> dict[str, Any] | None:
    try:
        values = json.loads(read_file(file, limit))
    except (OSError, ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def _kind(tokenizer: TokenizerKind | None) -> str:
    return "of a kind that convo does not know" if tokenizer == "other" else str(tokenizer)


def _suggested(given: str, names: Mapping[str, Iterable[str]], option: str) -> str:
    """Return a hint with the name that was meant, and all names; each has other names, too."""
    known = {name: name for name in names}
    known |= {other: name for name, others in names.items() for other in others}
    close = difflib.get_close_matches(given.lower(), known, n=1, cutoff=_CUTOFF)
    listed = f"one of {', '.join(names)}"
    return f"did you mean {option} {known[close[0]]}? ({listed})" if close else f"give {listed}"


def _listed(words: Iterable[str], last: str) -> str:
    *first, final = [*words] or [""]
    return f"{', '.join(first)} {last} {final}" if first else final
