"""Windows of a dialogue that is too long for one example, each rendered as a dialogue of its own.

A window holds the system turn and whole exchanges; its ids are the template's own rendering of
them, up to the end of the last one. An exchange is one turn, or a tool call with its results and
the assistant's turn after them, so no window has a result without its call. If the template refuses
such a dialogue, or needs more tokens for it than planned, the window begins one exchange later. If
no window works for an exchange, it is too long. With `long_turns: split` it is cut into parts, each
of which repeats the system turn and the tokens right before it.

Shapes: an example is two arrays of length T.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from convo_cli.data.dialogue import HEAD_ROLES, Turn, begins_exchange
from convo_cli.errors import DataError
from convo_cli.text.templates.pieces import Rendering
from convo_cli.text.windows import Window, cut_turn, first_that_fits, next_window
from convo_cli.tokens.store import NO_TARGET, Example

_TOLERANCE = 8
"""Tokens by which a window may be shorter than the same turns in the whole dialogue.

The window's own rendering decides.
"""
_NO_PREDECESSOR = "the first token of the turn has none before it"


@dataclass(frozen=True, slots=True)
class Found:
    """Examples with the exchanges up to ``stop`` (exclusive)."""

    examples: Sequence[Example]
    stop: int


@dataclass(frozen=True, slots=True)
class TooLong:
    """A turn of ``length`` tokens that fits no window."""

    needed: int
    """The smallest max_length at which the turn fits."""
    length: int
    message: str


def num_system_turns(turns: Sequence[Turn]) -> int:
    """Return the number of turns before the conversation, with the definitions of tools."""
    return sum(turn.role in HEAD_ROLES for turn in turns)


def is_folded(whole: Rendering, alone: Rendering | DataError, num_system: int) -> bool:
    """Return whether the template writes the system text into the next turn.

    ``alone`` is that turn without the system text.
    """
    return not isinstance(alone, DataError) and whole.opening(num_system) != alone.opening(0)


def earliest_start(turn_lengths: Sequence[int], room: int) -> int:
    """Return the earliest turn from which all turns up to the last may fit."""
    return first_that_fits(turn_lengths, room + _TOLERANCE)


class Cutter:
    """A dialogue that is longer than a window.

    Exchanges and turns are counted without the system turn, positions in tokens.
    """

    def __init__(
        self,
        turns: Sequence[Turn],
        whole: Rendering,
        kinds: Sequence[int],
        max_length: int,
        num_system: int,
        is_folded: bool,
    ) -> None:
        self.turns = turns[num_system:]
        self._system = turns[:num_system]
        self._whole = whole
        self._kinds = kinds
        self._targets = whole.targets(kinds)
        self._max_length = max_length
        self._is_folded = is_folded
        self._bounds_of_turns = whole.bounds(num_system)
        begins = [k for k in range(len(self.turns)) if begins_exchange(self.turns, k)]
        self._first_turns = [*begins, len(self.turns)]
        self._bounds = [self._bounds_of_turns[turn] for turn in self._first_turns]
        self._head = self._bounds[0]
        self._repeated = whole.describe_head(num_system, is_folded=is_folded)
        self._room = max_length - self._head
        self._lengths = [stop - start for start, stop in pairwise(self._bounds)]

    @property
    def num_exchanges(self) -> int:
        return len(self._lengths)

    def exchange_of(self, turn: int) -> int:
        """Return the exchange of a turn; the first one for a system turn."""
        return max(0, bisect_right(self._first_turns, turn) - 1)

    def is_long_question(self, exchange: int) -> bool:
        is_question = self.turns[self._first_turns[exchange]].role == "user"
        return is_question and self._lengths[exchange] > self._room

    def plan(self, fresh: int) -> Window:
        return next_window(self._lengths, fresh, self._room)

    def window(
        self, fresh: int
    ) -> Generator[Sequence[Turn], Rendering | DataError, Found | TooLong]:
        """Find the example whose first new exchange is ``fresh``, with the context that fits."""
        needed, reason, earliest = 0, "", fresh
        for stop in dict.fromkeys((self.plan(fresh).stop, fresh + 1)):
            num_fresh = self._bounds[stop] - self._bounds[fresh]
            earliest = earliest_start(self._lengths[:fresh], self._room - num_fresh)
            for first in range(earliest, fresh + 1):
                made = yield from self._render(first, fresh, stop)
                if isinstance(made, str):
                    reason = made
                elif len(made.input_ids) <= self._max_length:
                    return Found([made], stop)
                elif stop == fresh + 1:
                    needed = len(made.input_ids)
        # The template needs an earlier exchange first.
        for first in reversed(range(0 if needed else earliest)):
            made = yield from self._render(first, fresh, fresh + 1)
            if isinstance(made, Example):
                if len(made.input_ids) <= self._max_length:
                    return Found([made], fresh + 1)
                needed = len(made.input_ids)
                break
        length = self._lengths[fresh]
        return TooLong(needed or self._bounds[-1], length, self._explain(fresh, reason))

    def parts(self, first: int, stop: int) -> Found | TooLong:
        """Cut the exchanges from ``first`` to ``stop`` wherever a window is full.

        Each part repeats tokens before it.
        """
        lead, origin = self._lead(self._first_turns[first], self._bounds[stop])
        room = self._max_length - len(lead)
        if room < 2:
            message = (
                f"dialogue.max_length {self._max_length} leaves no room beside {self._repeated}"
            )
            return TooLong(len(lead) + 2, self._lengths[first], message)
        begin, end = max(self._bounds[first], origin), self._bounds[stop]
        examples = []
        num_context = max(1, self._max_length // 2 - len(lead))
        for part in cut_turn(begin - origin, end - origin, room, num_context):
            tokens = self._whole.input_ids[origin + part.start : origin + part.stop]
            fresh = self._targets[origin + part.fresh : origin + part.stop]
            before = np.zeros(len(lead) + part.fresh - part.start, np.uint8)
            is_first = origin + part.fresh == self._head
            input_ids, targets = np.concatenate([lead, tokens]), np.concatenate([before, fresh])
            num_repeated = 0 if is_first else len(before)
            examples.append(as_example(input_ids, targets, num_repeated=num_repeated))
        return Found(examples, stop)

    def _render(
        self, first: int, fresh: int, stop: int
    ) -> Generator[Sequence[Turn], Rendering | DataError, Example | str]:
        """Render exchanges as a dialogue of their own, with targets from ``fresh`` on.

        Returns the reason if that fails.
        """
        first, fresh, stop = (self._first_turns[k] for k in (first, fresh, stop))
        if self._is_folded and self.turns[first].role != "user":
            return "the chat template writes the system text into a user turn"
        rendering = yield (*self._system, *self.turns[first:stop])
        if isinstance(rendering, DataError):
            return str(rendering)
        num_system = len(self._system)
        if stop < len(self.turns):
            last = num_system + stop - 1
            rendering = rendering.ended_like(last - first, self._whole, last)
        kinds = [*self._kinds[num_system + fresh : num_system + stop]]
        targets = rendering.targets([NO_TARGET] * (num_system + fresh - first) + kinds)
        num_before = rendering.bounds(num_system)[fresh - first] if fresh else 0
        if fresh and targets[0] != NO_TARGET:
            return _NO_PREDECESSOR
        return as_example(rendering.input_ids, targets, num_repeated=num_before)

    def _lead(self, turn: int, end: int) -> tuple[NDArray[np.int32], int]:
        """Return the tokens that each part of a turn repeats, and where the part may begin.

        The repeated tokens are those that the template writes before the first turn. If the
        template folds the system text into a user turn, they end inside that turn: the words of a
        user turn follow directly, and those of a reply follow the last words of its question, as
        many as leave room for the tokens up to ``end``.
        """
        ids, head = self._whole.input_ids, self._head
        if not self._is_folded:
            return ids[:head], head
        said, _ = self._words(turn)
        question = next((k for k in reversed(range(turn)) if self.turns[k].role == "user"), None)
        if self.turns[turn].role == "user" or question is None:
            return ids[:head], said
        first_word, after_words = self._words(question)
        between = np.concatenate(
            [
                ids[after_words : self._bounds_of_turns[question + 1]],
                ids[self._bounds_of_turns[turn] : said],
            ]
        )
        room = self._max_length - head - len(between) - (end - said)
        num_words = room if room > 0 else max(1, (self._max_length // 2 - head - len(between)) // 2)
        words = ids[max(first_word, after_words - num_words) : after_words]
        return np.concatenate([ids[:head], words, between]), said

    def _words(self, turn: int) -> tuple[int, int]:
        """Return the positions at which the text of a turn begins and ends."""
        _, said, _ = self._whole.spoken[len(self._system) + turn]
        return self._whole.starts[said], self._whole.starts[said + 1]

    def _explain(self, exchange: int, reason: str) -> str:
        length, turn = self._lengths[exchange], self._first_turns[exchange]
        if reason == _NO_PREDECESSOR:
            return (
                f"dialogue.max_length {self._max_length} leaves no room for a token before a turn "
                f"of {length} tokens, so the first token of the turn could not be trained on"
            )
        limit = f"dialogue.max_length {self._max_length}"
        is_call = self._first_turns[exchange + 1] > turn + 1
        what = "a tool call with its result and the next turn, together" if is_call else "a turn of"
        message = f"{what} {length} tokens{', do' if is_call else ' does'} not fit into {limit}"
        if length <= self._room:
            message += f" with the turn before it, which it needs: {reason}"
        elif self._repeated:
            message += f" beside {self._repeated}"
        return message


def as_example(
    input_ids: NDArray[np.int32], targets: NDArray[np.uint8], *, num_repeated: int = 0
) -> Example:
    targets[:1] = NO_TARGET  # no token comes before the first one to predict it from
    return Example(input_ids, targets, num_repeated)
