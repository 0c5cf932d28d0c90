"""Conversion of a forerunner's config file into a config of convo, with an answer for each key."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convo_cli.config.explain import refusal
from convo_cli.config.forerunners.documented import nested
from convo_cli.config.forerunners.fit_form import convert_fit
from convo_cli.config.forerunners.forms import (
    FIT,
    LIGHTNING,
    MULTI_TURN,
    Form,
    find_form,
    is_convo,
    recognised_keys,
)
from convo_cli.config.forerunners.lightning import convert_lightning
from convo_cli.config.forerunners.multi_turn import convert_multi_turn
from convo_cli.config.forerunners.old_config import Answer, OldConfig, Status
from convo_cli.config.keys import value_of
from convo_cli.config.load import build_config
from convo_cli.config.places import SHOW_FORM, KeyPath, Place, Problem, Source
from convo_cli.config.reading.building import RepeatedKey
from convo_cli.config.reading.config_text import parse_config, read_text
from convo_cli.config.schema import RunConfig
from convo_cli.config.synonyms import SYNONYMS
from convo_cli.errors import ConfigError, typeable
from convo_cli.storage.files import read_file

_CONVERTERS: Mapping[Form, Callable[[OldConfig], None]] = {
    LIGHTNING: convert_lightning,
    FIT: convert_fit,
    MULTI_TURN: convert_multi_turn,
}
_NULL_TEXTS = {MULTI_TURN: ("None",)}
"""Texts that mean null: args.yaml is written with Python's words."""
_MAX_NAMED = 5
_MAX_MODEL_CONFIG = 2**20


@dataclass(frozen=True, slots=True)
class Conversion:
    """A config of convo, and what became of each key of the old one."""

    path: str
    form: Form
    config: RunConfig
    answers: tuple[Answer, ...]
    reasons: Mapping[str, str]
    """Why a key has its value, by dotted key."""

    def count(self, status: Status) -> int:
        """Return the number of keys with this status."""
        return sum(answer.status == status for answer in self.answers)

    def becomes(self, answer: Answer) -> dict[str, Any]:
        """Return the keys of convo that an old key sets, with their values."""
        return {key: value_of(self.config, key) for key in answer.becomes}


def convert(path: Path, given: Mapping[str, Sequence[str]]) -> Conversion:
    """Convert a config file of a forerunner.

    ``given`` replaces values of convo by dotted key. ConfigError lists all keys that need a
    decision; the value of such a key is never guessed.
    """
    source = parse_config(read_text(path), str(path))
    form = _form_of(source, path)
    old = OldConfig(source, given, null_texts=_NULL_TEXTS.get(form, ()))
    filled = [problem for problem in source.problems if _is_filled(problem)]
    problems = [problem for problem in source.problems if problem not in filled]
    for problem in problems:
        old.refuse(problem)
    _CONVERTERS[form](old)
    for problem in filled:
        old.note_filled(problem)
    old.new_values |= given
    _limit_to_context(old)
    config = None
    try:
        config = build_config(nested(old.new_values), str(path))
    except ConfigError as error:
        for detail in error.problems:
            old.refuse_new(detail.key or "", detail.message)
    answers = old.answers()
    undecided = [answer for answer in answers if answer.status == "ambiguous"]
    if problems:  # an alias or a merge may hold what is missing
        undecided = [answer for answer in undecided if answer.note != "missing"]
    if undecided or config is None:
        raise _undecided(path, undecided)
    return Conversion(str(path), form, config, tuple(answers), _reasons(old, answers))


def _form_of(source: Source, path: Path) -> Form:
    if (form := find_form(source.value)) is not None:
        return form
    place = Place(str(path))
    if is_convo(source.value):
        hint = f"convo train {typeable(path)}"
        raise Problem(place, (), "already a config of convo").error(hint)
    message = "neither a config of convmodel nor one of multi-turn-chatbot-GPT2"
    found = recognised_keys(source.value)
    shared = [f"{tool} has {', '.join(names[:_MAX_NAMED])}" for tool, names in found.items()]
    others = [f"{name} is {SYNONYMS[name]}" for name in source.value if name in SYNONYMS]
    if "trainer" in source.value:
        shared = ["it is a LightningCLI config, but its model section is not convmodel's"]
    elif not shared and others:
        shared = [f"in convo, {', '.join(others[:_MAX_NAMED])}"]
    if shared:
        message = f"{message} ({'; '.join(shared)})"
    raise Problem(place, (), message).error(SHOW_FORM)


def _is_filled(problem: Problem) -> bool:
    """Return whether a key is given twice and null at first.

    That is how convmodel's document adds callbacks; its YAML reader takes the last value.
    """
    return isinstance(problem, RepeatedKey) and problem.is_first_null


def _limit_to_context(old: OldConfig) -> None:
    """Lower a length that the old config does not set to the context of a model in a folder."""
    values = old.new_values
    folder, length = values.get("model.pretrained"), values.get("dialogue.max_length")
    if old.has_old_key("dialogue.max_length") or not isinstance(folder, str):
        return
    try:
        model = json.loads(read_file(Path(folder) / "config.json", _MAX_MODEL_CONFIG))
    except (OSError, ValueError, RecursionError):
        return
    context = model.get("n_positions") if isinstance(model, dict) else None
    if isinstance(context, int) and isinstance(length, int) and 16 <= context < length:
        values["dialogue.max_length"] = context


def _undecided(path: Path, answers: Sequence[Answer]) -> ConfigError:
    """Return the error that lists the keys which the user has to decide."""
    problems = []
    for answer in answers:
        key: KeyPath = tuple(answer.key.split(".")) if answer.key else ()
        problems.append(Problem(answer.place, key, answer.note))
    error = refusal(problems)
    hint = f"nothing was written; decide in {typeable(path)}, and run the command again"
    return ConfigError(error.message, hint=hint, problems=error.problems)


def _reasons(old: OldConfig, answers: Sequence[Answer]) -> dict[str, str]:
    """Return the old keys that set each key of convo."""
    reasons: dict[str, list[str]] = {}
    for answer in answers:
        for key in answer.becomes:
            reasons.setdefault(key, []).append(f"{answer.name} (line {answer.place.line})")
    return {
        key: f"From {', '.join(names)}." for key, names in reasons.items() if key in old.new_values
    }
