"""Repairs of a line that `data.columns` maps: texts and empty turns, but no keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from convo_cli.config.column_paths import PathSteps
from convo_cli.data.repair.reply_lists import repair_references
from convo_cli.data.shapes.items.turn_keys import TEXT_KEYS
from convo_cli.data.shapes.known_keys import TRAIN_KEYS
from convo_cli.data.shapes.mapped.steps import Columns, turn_lists, value_at

if TYPE_CHECKING:
    from convo_cli.config.schema import Reasoning

RepairText = Callable[[str], str]
_TRUE_OR_FALSE = {"true": True, "false": False, "1": True, "0": False}


def repair_mapped(
    value: Any, columns: Columns, repair_text: RepairText, reasoning: Reasoning | None = None
) -> Any:
    """Repair the texts of a line in place, and remove empty turns; return the line."""
    _repair_masks(value)
    pair = (columns.user, columns.assistant) if columns.turns is None else ()
    for steps in (columns.system, *pair):
        _repair_at(value, steps, repair_text)
    if pair and columns.assistant is not None and isinstance(value, dict):
        repair_references(value, _at(value, columns.assistant), repair_text, reasoning)
    for turns in turn_lists(value, columns):
        turns[:] = [repair_text(turn) if isinstance(turn, str) else turn for turn in turns]
        for turn in turns:
            _repair_masks(turn)
            for steps in _texts(turn, columns):
                _repair_at(turn, steps, repair_text)
            if isinstance(turn, dict) and (texts := _texts(turn, columns)):
                reply = _at(turn, texts[-1])
                repair_references(turn, reply, repair_text, reasoning)
        kept = [turn for turn in turns if not _is_empty(turn, columns)]
        if len(kept) >= 2:
            turns[:] = kept
    return value


def with_true_or_false(value: dict[str, Any]) -> None:
    """Replace strings such as "true" and "0" under "train", "weight" and "loss" by their values."""
    for key in TRAIN_KEYS:
        if isinstance(text := value.get(key), str):
            value[key] = _TRUE_OR_FALSE.get(text.lower(), text)


def text_key(turn: dict[str, Any]) -> str:
    """Return the first key of a turn that may hold its text."""
    return next((key for key in TEXT_KEYS if key in turn), "text")


def _texts(turn: Any, columns: Columns) -> list[PathSteps]:
    """Return the steps from a turn or a pair to its texts; from a plain text to itself."""
    if columns.user is not None and columns.assistant is not None:
        return [columns.user, columns.assistant]
    if columns.text is not None:
        return [columns.text]
    return [(text_key(turn),)] if isinstance(turn, dict) else []


def _is_empty(turn: Any, columns: Columns) -> bool:
    texts = [_at(turn, steps) for steps in _texts(turn, columns)]
    return len(texts) == 1 and isinstance(texts[0], str) and not texts[0].strip()


def _at(value: Any, steps: PathSteps) -> Any:
    try:
        return value_at(value, steps)
    except LookupError:
        return None


def _repair_at(value: Any, steps: PathSteps | None, repair_text: RepairText) -> None:
    if steps and isinstance(text := _at(value, steps), str):
        value_at(value, steps[:-1])[steps[-1]] = repair_text(text)


def _repair_masks(value: Any) -> None:
    if isinstance(value, dict):
        with_true_or_false(value)
