"""Recognition of configs of convo's forerunners by their keys."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_MIN_KEYS = 3
"""Fewest keys of its own by which a flat config is recognised."""
_SECTIONS = ("training", "dialogue")
"""Sections that only a config of convo has."""


@dataclass(frozen=True, slots=True)
class Form:
    """A kind of config."""

    tool: str
    title: str
    keys: frozenset[str]
    """Keys that convo does not have: of the whole config, or of the model section of LightningCLI
    YAML."""
    marks: frozenset[str] = frozenset()
    """Keys of a flat config, one of which is needed because other tools share the other keys."""


_LIGHTNING = """
    pretrained_model_or_path train_file valid_file test_file prefetch_factor num_workers
    shuffle_buffer_size lr num_warmup_steps num_training_steps
"""
_FIT = """
    pretrained_model_or_path output_path train_file valid_file eval_file save_best_model lr use_amp
    epochs accumulation_steps show_progress_bar log_steps shuffle_buffer_size num_workers
    prefetch_factor max_len model_class dataset_path
"""
_MULTI_TURN = """
    project pretrained_model max_len workers dailydialog_train dailydialog_dataset CUSTOM steps lr0
    lrf scheduler_type patience prediction_print_n train_user_turn_mask_step common metrics
"""
LIGHTNING = Form("convmodel", "LightningCLI YAML", frozenset(_LIGHTNING.split()))
FIT = Form(
    "convmodel",
    "fit JSON",
    frozenset(_FIT.split()),
    frozenset(("pretrained_model_or_path", "model_class", "accumulation_steps", "save_best_model")),
)
MULTI_TURN = Form(
    "multi-turn-chatbot-GPT2",
    "config.yaml or args.yaml",
    frozenset(_MULTI_TURN.split()),
    frozenset(("dailydialog_train", "dailydialog_dataset", "CUSTOM", "train_user_turn_mask_step")),
)


def is_convo(values: Any) -> bool:
    """Return whether these are the values of a convo config, perhaps with mistakes."""
    if not isinstance(values, dict):
        return False
    data, model = _section(values, "data"), _section(values, "model")
    has_data = "train" in data or "validation" in data
    has_model = "pretrained" in model or "scratch" in model
    return any(name in values for name in _SECTIONS) or has_data or has_model


def find_form(values: Any) -> Form | None:
    """Return the form of config that these values have, or None if it is not a forerunner's."""
    if not isinstance(values, dict) or is_convo(values):
        return None
    model = _section(values, "model")
    if (
        "trainer" in values
        or "seed_everything" in values
        or _num_keys(LIGHTNING, model) >= _MIN_KEYS
    ):
        return LIGHTNING if not model or _num_keys(LIGHTNING, model) else None
    form = max(FIT, MULTI_TURN, key=lambda form: _num_keys(form, values))
    return form if _num_keys(form, values) >= _MIN_KEYS and form.marks & set(values) else None


def recognised_keys(values: Any) -> dict[str, list[str]]:
    """Return the keys that also occur in a forerunner's config, by the name of the forerunner."""
    found: dict[str, list[str]] = {}
    for form in (FIT, MULTI_TURN):
        if names := [name for name in values if name in form.keys]:
            found[form.tool] = names
    return found


def _num_keys(form: Form, names: Iterable[str]) -> int:
    return len(form.keys & set(names))


def _section(values: dict[str, Any], name: str) -> dict[str, Any]:
    section = values.get(name)
    return section if isinstance(section, dict) else {}
