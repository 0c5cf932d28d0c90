"""Columns that a line of an unknown shape probably has, by its keys and the types of its values.

A list of objects with a name and a text is the list of turns; two texts whose keys mean a question
and an answer are a pair; a list of texts is a list of turns. Nothing is proposed for a line that is
one turn, one side of a preference, or one long text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from convo_cli.config.column_paths import PathSteps, path_to, steps_of
from convo_cli.data.roles.proposal import ColumnPaths
from convo_cli.data.roles.role_words import Hint, hint_of
from convo_cli.data.shapes.items.turn_keys import SPEAKER_KEYS, TEXT_KEYS
from convo_cli.data.shapes.mapped.steps import value_at

_MAX_DEPTH = 4
_MAX_PLACES = 200
"""Most values of a line or turn that are considered."""
_MAX_NAME = 40
_SPEAKERS = """
    speaker role from author sender name who by user party participant actor agent person side
    username nick nickname character talker src source speakerid speaker_id speaker_idx userid
"""
_TEXTS = "text content value utterance message msg body say said sentence line transcript words"
_SPEAKER_WORDS = frozenset({*_SPEAKERS.split(), *SPEAKER_KEYS})
_TEXT_WORDS = frozenset({*_TEXTS.split(), *TEXT_KEYS})
_PREFERENCE = frozenset({"chosen", "rejected", "chosen_response", "rejected_response"})
_NO_TURNS = frozenset(
    {"tools", "functions", "tool_calls", "candidates", "replies", "children", "choices"}
    | {"options", "history", "tags"}
)
"""Keys of lists that belong to a turn or a line, but are no turns."""
_METADATA = re.compile(r"(?i)(?:.*[-_ .])?(?:id|name|type|date|time|timestamp|lang|language|url)")
_ROW_OF_TURN = re.compile(
    r"(?i)(?:conv|dialog|thread|parent|reply|session)\w{0,20}[-_ ]?(?:id|idx|to)\b"
    r"|(?:utt|utterance|turn|message)[-_ ]?(?:id|idx|index|no|num|number)\b"
)
_SYSTEM_KEY = re.compile(r"(?i)sys(?:tem)?(?:[-_ ]?(?:prompt|text|message|instructions?))?")
_LETTERS: dict[str, Hint] = {"q": "user", "a": "assistant"}
_SPACE = re.compile(r"\S\s+\S")


def likely_columns(value: Any) -> ColumnPaths:
    """Return the columns of a decoded line with their paths; none if no mapping is likely."""
    if not isinstance(value, (dict, list)):
        return ()
    if isinstance(value, dict) and not _PREFERENCE.isdisjoint(value):
        return ()
    return _turns(value) or _pair(value)


def _turns(value: Any) -> ColumnPaths:
    """Return the columns of the list with the most text."""
    found: list[tuple[int, ColumnPaths]] = []
    for steps, items in _lists(value):
        if all(isinstance(item, dict) for item in items):
            columns = _turn_columns(items)
            if columns:
                text = dict(columns).get("text") or dict(columns)["assistant"]
                texts = [_text_at(item, steps_of(text)) for item in items]
                found.append((sum(map(len, texts)), _with_turns(steps, columns)))
        elif len(items) > 1 and _are_texts(items):
            found.append((sum(map(len, items)), _with_turns(steps, ())))
    if not found:
        return ()
    columns = max(found, key=lambda item: item[0])[1]
    return (*columns, *_system(value, dict(columns)["turns"]))


def _are_texts(items: Sequence[Any]) -> bool:
    is_text = all(isinstance(item, str) and item.strip() for item in items)
    return is_text and any(map(_SPACE.search, items))


def _with_turns(steps: PathSteps, columns: ColumnPaths) -> ColumnPaths:
    return (("turns", path_to(steps)), *columns)


def _turn_columns(items: Sequence[dict[str, Any]]) -> ColumnPaths:
    """Return the columns of the turns or pairs in a list of objects."""
    places = [steps for steps, _ in _scalars(items[0]) if steps]
    common = [steps for steps in places if all(_is_text_at(item, steps) for item in items)]
    speakers = [steps for steps in common if _may_be_speaker(steps, items)]
    texts = [steps for steps in common if not _is_number_at(items[0], steps)]
    if speakers:
        speaker = max(speakers, key=lambda steps: _speaker_rank(steps, items))
        texts = [steps for steps in texts if steps != speaker]
        if texts:
            text = max(texts, key=lambda steps: _text_rank(steps, items))
            return ("speaker", path_to(speaker)), ("text", path_to(text))
    return _pair_of([(steps, _key_hint(steps)) for steps in texts])


def _key_hint(steps: PathSteps) -> Hint | None:
    key = str(steps[-1])
    return _LETTERS.get(key.casefold()) or hint_of(key)


def _pair(value: Any) -> ColumnPaths:
    """Return the columns of a line with one question and one answer."""
    if not isinstance(value, dict) or any(map(_ROW_OF_TURN.search, value)):
        return ()
    texts = [
        steps
        for steps, item in _scalars(value)
        if isinstance(item, str) and item.strip() and not _METADATA.fullmatch(str(steps[-1]))
    ]
    pair = _pair_of([(steps, _key_hint(steps)) for steps in texts])
    if not pair:
        spoken = [steps for steps in texts if _SPACE.search(_text_at(value, steps))]
        if len(spoken) != 2 or any(len(steps) > 1 for steps in spoken):
            return ()
        pair = (("user", path_to(spoken[0])), ("assistant", path_to(spoken[1])))
    return (*pair, *_system(value, ""))


def _pair_of(hinted: Sequence[tuple[PathSteps, str | None]]) -> ColumnPaths:
    """Return the pair if exactly one place means each side."""
    users = [steps for steps, hint in hinted if hint == "user"]
    assistants = [steps for steps, hint in hinted if hint in ("assistant", "system")]
    if len(users) != 1 or len(assistants) != 1:
        return ()
    return ("user", path_to(users[0])), ("assistant", path_to(assistants[0]))


def _system(value: Any, turns: str) -> ColumnPaths:
    """Return the column of a system text, the longest under a key of that meaning."""
    found: list[tuple[int, str]] = []
    for steps, item in _scalars(value):
        name = next((step for step in steps if isinstance(step, str)), "")
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
        is_system = words.casefold() != "system" and _SYSTEM_KEY.fullmatch(words)
        if is_system and isinstance(item, str) and not turns.startswith(name):
            found.append((len(item), path_to(steps)))
    return (("system", max(found)[1]),) if found else ()


def _may_be_speaker(steps: PathSteps, items: Sequence[dict[str, Any]]) -> bool:
    names = [_text_at(item, steps) for item in items]
    is_short = all(0 < len(name.strip()) <= _MAX_NAME and "\n" not in name for name in names)
    is_repeated = len(set(names)) < len(names) or len(names) == 2
    is_named = _is_speaker_key(steps)
    return is_short and (is_named or (is_repeated and any(map(hint_of, names))))


def _is_speaker_key(steps: PathSteps) -> bool:
    """Return whether a key on the way is a word for a speaker."""
    return any(str(step).casefold() in _SPEAKER_WORDS for step in steps)


def _speaker_rank(steps: PathSteps, items: Sequence[dict[str, Any]]) -> tuple[bool, bool, int, int]:
    """Prefer names with a role, words for a speaker, few names, and a place that is not nested."""
    names = {_text_at(item, steps) for item in items}
    is_hinted = any(map(hint_of, names))
    is_word = str(steps[-1]).casefold() in _SPEAKER_WORDS
    return is_hinted, is_word, -len(names), -len(steps)


def _text_rank(steps: PathSteps, items: Sequence[dict[str, Any]]) -> tuple[bool, int]:
    """Prefer a word for a text whose values are sentences, then the longest values."""
    texts = [_text_at(item, steps) for item in items]
    is_word = str(steps[-1]).casefold() in _TEXT_WORDS
    is_spoken = any(map(_SPACE.search, texts))
    return is_word and (is_spoken or len(set(texts)) > 1), sum(map(len, texts))


def _lists(value: Any, steps: PathSteps = ()) -> Iterator[tuple[PathSteps, list[Any]]]:
    """Yield every list in a value that may hold turns."""
    if isinstance(value, list):
        if value:
            yield steps, value
    elif isinstance(value, dict) and len(steps) < _MAX_DEPTH:
        for key, item in list(value.items())[:_MAX_PLACES]:
            if key not in _NO_TURNS:
                yield from _lists(item, (*steps, key))


def _scalars(value: Any, steps: PathSteps = ()) -> Iterator[tuple[PathSteps, Any]]:
    """Yield the texts and whole numbers of a value, also in objects and first items."""
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        yield steps, value
    elif isinstance(value, dict) and len(steps) < _MAX_DEPTH:
        for key, item in list(value.items())[:_MAX_PLACES]:
            yield from _scalars(item, (*steps, key))
    elif isinstance(value, list) and value and steps and len(steps) < _MAX_DEPTH:
        yield from _scalars(value[0], (*steps, 0))


def _text_at(value: Any, steps: PathSteps) -> str:
    try:
        return str(value_at(value, steps))
    except LookupError:
        return ""


def _is_text_at(value: Any, steps: PathSteps) -> bool:
    return bool(_text_at(value, steps)) and isinstance(value_at(value, steps), (str, int))


def _is_number_at(value: Any, steps: PathSteps) -> bool:
    return not isinstance(value_at(value, steps), str)
