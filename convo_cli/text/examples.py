"""Examples of a dialogue: the whole dialogue if it fits, else its windows.

The search is a generator: it yields turns, receives their rendering, and returns the examples. This
lets `encoder` render and encode the turns of many dialogues in one batch.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TypeAlias

from convo_cli.config.schema import LongTurns, TrainOn
from convo_cli.data.dialogue import Dialogue, Turn
from convo_cli.data.problems import LongTurn, Problem
from convo_cli.errors import DataError
from convo_cli.text.cutting import Cutter, Found, TooLong, as_example, is_folded, num_system_turns
from convo_cli.text.templates.pieces import Rendering
from convo_cli.tokens.store import ASSISTANT_TARGET, NO_TARGET, USER_TARGET, Encoded, Example

Search: TypeAlias = Generator[Sequence[Turn], Rendering | DataError, Encoded | Problem]


def search(dialogue: Dialogue, train_on: TrainOn, max_length: int, long_turns: LongTurns) -> Search:
    """Find the examples of a dialogue, or the problem for which it is refused."""
    whole = yield dialogue.turns
    if isinstance(whole, DataError):
        uses_tools = any(turn.uses_tools for turn in dialogue.turns)
        code = "tools-not-rendered" if uses_tools else "not-renderable"
        return Problem(code, str(whole), "$", 1, dialogue.line, dialogue.file)
    kinds = _target_kinds(dialogue.turns, train_on)
    num_tokens = len(whole.input_ids)
    if num_tokens <= max_length:
        return Encoded([as_example(whole.input_ids, whole.targets(kinds))], num_tokens)
    num_system = num_system_turns(dialogue.turns)
    alone = (yield dialogue.turns[num_system : num_system + 1]) if num_system else whole
    cutter = Cutter(
        dialogue.turns, whole, kinds, max_length, num_system, is_folded(whole, alone, num_system)
    )
    examples, refused, fresh, is_split = list[Example](), list[TooLong](), 0, False
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
    if refused:
        needed = max(turn.needed for turn in refused)
        message = f"{max(refused, key=lambda turn: turn.length).message} (it needs {needed})"
        return LongTurn(
            "turn-too-long", message, "$", 1, dialogue.line, dialogue.file, needed=needed
        )
    return Encoded(examples, num_tokens, is_split)


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
