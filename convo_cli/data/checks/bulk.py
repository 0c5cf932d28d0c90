"""Bulk reader of the good lines of a block: those in which nothing is wrong or suspicious.

The form of a line is its JSON without the content of its texts. The exact reader judges one line of
each form, with placeholder texts; in all other lines of a good form only the texts are searched.
Every doubtful line is left to the exact reader, so this module reports no problems.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from convo_cli.data.checks.characters import count_ascii_letters, count_beyond_ascii
from convo_cli.data.checks.exact import LineRules, Skeleton, read_decoded
from convo_cli.data.checks.statistics import BlockStatistics
from convo_cli.data.checks.suspicions import LONG_UTTERANCE_BYTES, doubtful_texts
from convo_cli.data.checks.suspicious_text import may_be_suspicious
from convo_cli.data.dialogue import SEPARATOR
from convo_cli.data.fingerprint import fingerprints, fold
from convo_cli.data.problems import Problem
from convo_cli.data.shapes.items.turn_keys import name_key
from convo_cli.data.shapes.known_keys import TRAIN_KEYS
from convo_cli.data.shapes.mapped.steps import mapped_speaker_keys
from convo_cli.data.shapes.tools.tool_calls import may_define_tools
from convo_cli.data.shapes.unread import counted_length, texts_in
from convo_cli.data.strict_json.decoder import (
    UNREADABLE,
    may_hold_control,
    may_repeat_key,
    num_keys,
    read,
)

_VALUE_KEYS = frozenset({*TRAIN_KEYS, "history"})
"""Keys whose numbers affect how a line is read; elsewhere only the type of a number does."""
_UNKNOWN = cast(None, object())
_MAX_FORM_BYTES = 2**23
"""Total length of the lines whose forms are kept; it bounds the memory."""


class _Form(msgspec.Struct, eq=False):
    """Properties that all lines of one form share."""

    skeleton: Skeleton
    num_keys: int
    order: list[int] | None
    """Indices of the strings that are the texts of its turns; None if they are all, in order."""
    unread: list[tuple[int, str]]
    """Strings under keys that are not read: the index of each string, and its key."""


class _Line(NamedTuple):
    number: int
    """Index of the line in its block, from 0."""
    form: _Form
    texts: str
    """The texts of its turns, joined by separators."""
    strings: list[str]
    """All strings of the line, in the order of `_take_strings`."""
    num_stripped: int
    """Texts with white space at an end."""


class BulkReader:
    """Reads blocks of lines; forms found in one block speed up the next."""

    def __init__(self, rules: LineRules) -> None:
        self._rules = rules
        self._mapped = mapped_speaker_keys(rules.data_config.columns)
        self._forms: dict[Any, _Form | None] = {}
        """None for a form whose lines need the exact reader."""
        self._num_form_bytes = 0
        self._is_plain = np.zeros(0x110000, np.bool_)

    def read(self, data: bytes) -> BlockStatistics:
        """Return the statistics of those whole lines in ``data`` that are certainly good."""
        good = BlockStatistics()
        lines = list(self._readable(data))
        # Separately, because one wide character slows down every operation on the texts of a block.
        for is_ascii in (True, False):
            self._add(good, [line for line in lines if line.texts.isascii() is is_ascii])
        return good

    def _readable(self, data: bytes) -> Iterator[_Line]:
        """Yield the lines with a good form."""
        may_hold_controls = may_hold_control(data)
        for number, line in enumerate(data.split(b"\n")[:-1]):
            if len(line) > LONG_UTTERANCE_BYTES or (may_hold_controls and may_hold_control(line)):
                continue
            strings: list[str] = []
            try:
                value = read(line)
                structure = _take_strings(value, strings, self._mapped)
                if (form := self._forms.get(structure, _UNKNOWN)) is _UNKNOWN:
                    form = self._judge(value, structure, len(line))
            except UNREADABLE:
                continue
            if form is None or (form.num_keys and may_repeat_key(line, form.num_keys)):
                continue
            stripped = list(map(str.strip, strings))
            if "" in stripped:
                continue
            num_stripped = 0
            if stripped != strings:
                of_turns = form.order or range(len(strings))
                num_stripped = sum(strings[index] != stripped[index] for index in of_turns)
            if form.order is not None:
                stripped = [stripped[index] for index in form.order]
            yield _Line(number, form, SEPARATOR.join(stripped), strings, num_stripped)

    def _add(self, good: BlockStatistics, lines: list[_Line]) -> None:
        """Add the lines whose texts are certainly not suspicious and hold no reasoning."""
        texts = [line.texts for line in lines]
        together = SEPARATOR.join(texts)
        counts = count_beyond_ascii(together)
        notable = self._notable(counts)
        if doubtful := doubtful_texts(texts, together, notable):
            removed = count_beyond_ascii("".join([texts[index] for index in doubtful]))
            counts[: len(removed)] -= removed
            lines = [line for index, line in enumerate(lines) if index not in doubtful]
            texts = [line.texts for line in lines]
            together = SEPARATOR.join(texts)
        codes = np.flatnonzero(counts)
        good.beyond_ascii.append((codes, counts[codes]))
        good.num_ascii_letters += count_ascii_letters(together)
        good.fingerprints += fingerprints(texts, notable)
        first = {line.form: line.number for line in reversed(lines)}
        for form, count in Counter(line.form for line in lines).items():
            good.add_skeleton(form.skeleton, first[form], count)
        for number, form, joined, strings, num_stripped in lines:
            good.dialogues.append(number)
            good.num_characters.append(len(joined) + 1 - len(form.skeleton.roles))
            good.num_stripped += num_stripped
            of_turns = frozenset(joined.split(SEPARATOR)) if form.unread else frozenset()
            for index, key in form.unread:
                good.add_unread(key, 1, counted_length(strings[index], of_turns, key))

    def _notable(self, counts: NDArray[np.intp]) -> str:
        """Return the characters that may be suspicious or that normalisation changes."""
        codes = np.flatnonzero(counts)
        unknown = list(map(chr, codes[~self._is_plain[codes]].tolist()))
        notable = "".join(char for char in unknown if fold(char) != char or may_be_suspicious(char))
        self._is_plain[codes] = True
        self._is_plain[list(map(ord, notable))] = False
        return notable

    def _judge(self, value: Any, structure: Any, num_bytes: int) -> _Form | None:
        """Return the form of a value as the exact reader judges it; keep it if memory allows."""
        self._num_form_bytes += num_bytes
        if self._num_form_bytes > _MAX_FORM_BYTES:
            return None
        form = self._forms[structure] = self._form(value)
        return form

    def _form(self, value: Any) -> _Form | None:
        made_up: list[str] = []
        value = _with_made_up(value, made_up, self._mapped)
        problems: list[Problem] = []
        reading = read_decoded(value, self._rules, problems.append)
        if reading is None or problems:
            return None
        skeleton, (turns, unread, *_) = reading
        texts = [turn.text for _, turn in turns]
        if skeleton.is_excluded or skeleton.num_reasoning:
            return None
        # Calls, ids and definitions are strings outside the texts, and strings may hold JSON.
        if any(turn.uses_tools for _, turn in turns) or may_define_tools(value):
            return None
        # A text may combine several strings.
        place = {text: index for index, text in enumerate(made_up)}
        key_of = {text: key for _, key, item in unread for text in texts_in(item)}
        if sorted([*texts, *key_of]) != sorted(made_up):
            return None
        order = [place[text] for text in texts]
        unread_strings = [(place[text], key) for text, key in key_of.items()]
        is_as_read = order == list(range(len(made_up)))
        return _Form(skeleton, num_keys(value), None if is_as_read else order, unread_strings)


def _take_strings(value: Any, strings: list[str], mapped: frozenset[str], key: str = "") -> Any:
    """Return everything that affects how a value is read, and append all other ``strings``.

    ``mapped`` are the keys of names in mapped lines.
    """
    kind: Any = type(value)
    if kind is dict:
        # All keys, then the names of speakers, and everything else that matters with its key.
        parts: list[Any] = [*value]
        name = name_key(tuple(parts))
        for key, item in value.items():
            is_name = key == name or key in mapped
            if type(item) is str:
                if is_name:
                    parts.append(item)
                elif item:
                    strings.append(item)
                else:
                    parts.append((key, item))
            elif is_name and type(item) is int:
                parts.append((key, item, int))  # a number may be the name of a speaker
            else:
                parts.append((key, _take_strings(item, strings, mapped, key)))
        return tuple(parts)
    if kind is list:
        if set(map(type, value)) == {str}:
            strings += value
            return list, len(value)
        return list, *[_take_strings(item, strings, mapped) for item in value]
    if kind is str:
        strings.append(value)
    if key in _VALUE_KEYS:
        return value
    if kind is int:
        float(value)
    return kind


def _with_made_up(value: Any, made_up: list[str], mapped: frozenset[str]) -> Any:
    """Return the value with a placeholder for each string that `_take_strings` takes."""
    if isinstance(value, dict):
        name = name_key(tuple(value))
        return {
            key: item
            if item == "" or (isinstance(item, str) and (key == name or key in mapped))
            else _with_made_up(item, made_up, mapped)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_with_made_up(item, made_up, mapped) for item in value]
    if isinstance(value, str):
        # No line can contain U+0001, so no speaker has this name.
        made_up.append(f"text \1{len(made_up)}")
        return made_up[-1]
    return value
