"""Replies of a finished model to the assistant turns of dialogues, each from its real history."""

from __future__ import annotations

from collections.abc import Sequence

from convo_cli.config.schema import GenerationSettings
from convo_cli.data.dialogue import Dialogue
from convo_cli.data.held_out.references import reference_indices
from convo_cli.errors import is_out_of_memory
from convo_cli.evaluation.replies import spoken
from convo_cli.events import Emit, Notice, Progress, SampleReply
from convo_cli.model.decoding.generator import Generator, Reply
from convo_cli.wording import counted


def answer_turns(
    generator: Generator, dialogues: Sequence[Dialogue], max_new_tokens: int, emit: Emit
) -> dict[int, SampleReply]:
    """Answer every turn of `reference_indices` greedily; return the replies by turn, from 0.

    The key of a turn is its number among these turns of all dialogues. A turn that does not fit
    into the window is left out with a warning, and all turns are if memory runs out.
    """
    places = [
        (number, turn)
        for number, one in enumerate(dialogues)
        for turn in reference_indices(one.turns)
    ]
    if not places:
        return {}
    greedy = GenerationSettings(max_new_tokens=max_new_tokens, temperature=0.0)

    def count(done: int) -> None:
        emit(Progress("generating replies", done, len(places)))

    count(0)
    try:
        answered = generator.all_replies(dialogues, greedy, on_reply=count)
    except (MemoryError, OSError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        message = (
            f"not enough memory to generate replies ({type(error).__name__}), so there are no "
            "scores of replies; lower --max-new-tokens"
        )
        emit(Notice(message, is_warning=True))
        return {}
    replies = {
        (number, turn): reply
        for number, one in enumerate(answered)
        for turn, reply in zip(one.turns, one.replies, strict=True)
    }
    if num_left_out := len(places) - len(replies):
        count(len(places))
        message = (
            f"no reply to {num_left_out:,} of {counted(len(places), 'turn')}: the turn to answer "
            "is longer than the model's window"
        )
        emit(Notice(message, is_warning=True))
    return {
        number: _sample(dialogues[which], turn, replies[which, turn])
        for number, (which, turn) in enumerate(places)
        if (which, turn) in replies
    }


def _sample(dialogue: Dialogue, turn: int, reply: Reply) -> SampleReply:
    real = dialogue.turns[turn]
    return SampleReply(
        spoken(dialogue.turns[:turn]), real.text, reply.text, reply.stopped, real.references
    )
