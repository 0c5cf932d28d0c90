"""Replies of a finished model to the assistant turns of dialogues, each from its real history."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from convo_cli.config.schema import GenerationSettings
from convo_cli.data.dialogue import Dialogue
from convo_cli.data.held_out.references import reference_indices
from convo_cli.errors import OutOfMemoryError
from convo_cli.evaluation.replies import spoken
from convo_cli.evaluation.shared_replies import Answer, SharedReplies
from convo_cli.events import Emit, Notice, Progress, SampleReply
from convo_cli.model.decoding.generator import Generator, Reply
from convo_cli.wording import counted
from convo_cli.world import World


def answer_turns(
    generator: Generator,
    dialogues: Sequence[Dialogue],
    max_new_tokens: int,
    emit: Emit,
    world: World,
) -> dict[int, SampleReply]:
    """Answer every turn of `reference_indices` greedily; return the replies by turn, from 0.

    The key of a turn is its number among these turns of all dialogues. A turn that does not fit
    into the window is left out with a warning; if memory runs out, all turns are. Each process of
    the world answers the turns of some dialogues, and returns the replies of all processes.
    """
    turns = [reference_indices(one.turns) for one in dialogues]
    places = [(number, turn) for number, found in enumerate(turns) for turn in found]
    if not places:
        return {}
    number_of = {place: number for number, place in enumerate(places)}
    greedy = GenerationSettings(max_new_tokens=max_new_tokens, temperature=0.0)

    def show(done: int) -> None:
        emit(Progress("generating replies", done, len(places)))

    show(0)
    shared = SharedReplies(world, show)
    own = shared.own_items(np.array([len(found) for found in turns], np.int64))

    def generate() -> dict[int, Reply]:
        answered = generator.all_replies(
            [dialogues[which] for which in own], greedy, on_reply=shared.count
        )
        return {
            number_of[which, turn]: reply
            for which, one in zip(own, answered, strict=True)
            for turn, reply in zip(one.turns, one.replies, strict=True)
        }

    try:
        answers = shared.collect(generate)
    except OutOfMemoryError as error:
        message = (
            f"not enough memory to generate replies ({error.message}), so there are no "
            "scores of replies; lower --max-new-tokens"
        )
        emit(Notice(message, is_warning=True))
        return {}
    if num_left_out := len(places) - len(answers):
        show(len(places))
        message = (
            f"no reply to {num_left_out:,} of {counted(len(places), 'turn')}: the turn to answer "
            "is longer than the model's window"
        )
        emit(Notice(message, is_warning=True))
    return {
        number: _sample(dialogues[places[number][0]], places[number][1], answer)
        for number, answer in answers.items()
    }


def _sample(dialogue: Dialogue, turn: int, answer: Answer) -> SampleReply:
    real = dialogue.turns[turn]
    return SampleReply(
        spoken(dialogue.turns[:turn]), real.text, answer.text, answer.stopped, real.references
    )
