"""Examples of a dialogue: the whole dialogue if it fits, or one for each reply; else windows.

The search is a generator: it yields turns, receives their rendering, and returns the examples. This
lets `encoder` render and encode the turns of many dialogues in one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeAlias

from convo_cli.config.schema import LongTurns, TrainOn
from convo_cli.data.dialogue import Dialogue, Turn
from convo_cli.data.problems import LongTurn, Problem
from convo_cli.errors import DataError
from convo_cli.text.cutting import Cutter, Found, TooLong, as_example, is_folded, num_system_turns
from convo_cli.text.templates.pieces import MovedReplyError, Rendering
from convo_cli.tokens.store import ASSISTANT_TARGET, NO_TARGET, USER_TARGET, Encoded, Example

Search: TypeAlias = Generator[Sequence[Turn], Rendering | DataError, Encoded | Problem]


@dataclass(frozen=True, slots=True)
class _Windows:
    """The windows of a rendering, and the turns that fit none."""

    examples: Sequence[Example]
    refused: Sequence[TooLong]
    is_split: bool


def search(dialogue: Dialogue, train_on: TrainOn, max_length: int, long_turns: LongTurns) -> Search:
    """Find the examples of a dialogue, or the problem for which it is refused.

    If the template renders a reply differently once the dialogue goes on, each reply that is
    trained on becomes the end of examples of its own, with the turns before it as context.
    """
    kinds = _target_kinds(dialogue.turns, train_on)
    turns = _as_trained(dialogue.turns, kinds)
    whole = yield turns
    parts = [(0, len(turns), whole)]
    if isinstance(whole, MovedReplyError):
        parts = []
        for first, stop in _groups(kinds):
            parts.append((first, stop, (yield _part(turns, first, stop))))
    examples, too_long, longest, is_split = list[Example](), list[TooLong](), 0, False
    for first, stop, rendering in parts:
        if isinstance(rendering, DataError):
            uses_tools = any(turn.uses_tools for turn in dialogue.turns)
            code = "tools-not-rendered" if uses_tools else "not-renderable"
            return Problem(code, str(rendering), "$", 1, dialogue.line, dialogue.file)
        longest = max(longest, len(rendering.input_ids))
        part, of_part = _part(turns, first, stop), [NO_TARGET] * first + kinds[first:stop]
        num_system = num_system_turns(part)
        if len(rendering.input_ids) <= max_length:
            num_repeated = rendering.bounds(num_system)[first - num_system] if first else 0
            targets = rendering.targets(of_part)
            examples.append(as_example(rendering.input_ids, targets, num_repeated=num_repeated))
            continue
        alone = (yield part[num_system : num_system + 1]) if num_system else rendering
        folded = is_folded(rendering, alone, num_system)
        cutter = Cutter(part, rendering, of_part, max_length, num_system, folded)
        found = yield from _windows(cutter, cutter.exchange_of(first - num_system), long_turns)
        examples += found.examples
        too_long += found.refused
        is_split = is_split or found.is_split
    if too_long:
        needed = max(turn.needed for turn in too_long)
        message = f"{max(too_long, key=lambda turn: turn.length).message} (it needs {needed})"
        return LongTurn(
            "turn-too-long", message, "$", 1, dialogue.line, dialogue.file, needed=needed
        )
    return Encoded(examples, longest, is_split)


def run(
    searches: Sequence[Search],
    render_all: Callable[[Sequence[Sequence[Turn]]], Sequence[Rendering | DataError]],
) -> list[Encoded | Problem]:
    """Return the result of each search; each round renders what all of them ask for together."""
    found: dict[int, Encoded | Problem] = {}
    asked = {number: next(one) for number, one in enumerate(searches)}
    while asked:
        answers = render_all(list(asked.values()))
        for number, answer in zip(list(asked), answers, strict=True):
            try:
                asked[number] = searches[number].send(answer)
            except StopIteration as end:
                found[number] = end.value
                del asked[number]
    return [found[number] for number in range(len(searches))]


def _windows(
    cutter: Cutter, fresh: int, long_turns: LongTurns
) -> Generator[Sequence[Turn], Rendering | DataError, _Windows]:
    """Find the windows of the exchanges from ``fresh`` on."""
    examples, refused, is_split = list[Example](), list[TooLong](), False
    while fresh < cutter.num_exchanges:
        # A reply to a split question gets the end of the question as context, which no window of
        # whole turns contains.
        follows_long_question = is_split and cutter.is_long_question(fresh - 1)
        found = None if follows_long_question else (yield from cutter.window(fresh))
        if not isinstance(found, Found) and long_turns == "split":
            stop = cutter.plan(fresh).stop if follows_long_question else fresh + 1
            found = cutter.parts(fresh, stop)
            is_split = True
        if isinstance(found, Found):
            examples += found.examples
            fresh = found.stop
        elif found is not None:
            refused.append(found)
            fresh += 1
    return _Windows(examples, refused, is_split)


def _as_trained(turns: Sequence[Turn], kinds: Sequence[int]) -> tuple[Turn, ...]:
    """Return the turns in which only the replies with targets count as trained on."""
    return tuple(
        [
            replace(turn, is_trained=False)
            if turn.is_trained and turn.role == "assistant" and kind == NO_TARGET
            else turn
            for turn, kind in zip(turns, kinds, strict=True)
        ]
    )


def _groups(kinds: Sequence[int]) -> list[tuple[int, int]]:
    """Return the turns up to each reply that is trained on, and the rest if it has targets."""
    ends = [index + 1 for index, kind in enumerate(kinds) if kind == ASSISTANT_TARGET]
    if any(kinds[ends[-1] if ends else 0 :]):
        ends.append(len(kinds))
    return list(pairwise([0, *ends]))


def _part(turns: Sequence[Turn], first: int, stop: int) -> tuple[Turn, ...]:
    """Return the turns up to ``stop``; those before ``first`` are only context."""
    context = _as_trained(turns[:first], [NO_TARGET] * first)
    return (*context, *turns[first:stop])


def _target_kinds(turns: Sequence[Turn], train_on: TrainOn) -> list[int]:
    """Return the target kind of each turn's text and end token."""
    last = max((k for k, turn in enumerate(turns) if turn.is_reply), default=-1)
    kinds = []
    for index, turn in enumerate(turns):
        kind = NO_TARGET
        if turn.role == "user":
            kind = USER_TARGET
        elif turn.is_reply and (train_on != "last" or index == last):
            kind = ASSISTANT_TARGET
        kinds.append(kind if turn.is_trained else NO_TARGET)
    return kinds
