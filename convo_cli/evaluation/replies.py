"""Replies generated from the real history of validation dialogues."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from convo_cli.config.schema import GenerationSettings
from convo_cli.data.dialogue import Dialogue, Turn
from convo_cli.data.held_out.references import reference_index
from convo_cli.errors import DataError
from convo_cli.evaluation.shared_replies import SharedReplies
from convo_cli.events import SampleReply
from convo_cli.model.decoding.generator import Generator, Reply


def reply_to_all(
    generator: Generator,
    dialogues: Sequence[Dialogue],
    settings: GenerationSettings,
    shared: SharedReplies,
) -> list[SampleReply]:
    """Answer the last assistant turn of each dialogue greedily, given everything said before it.

    Dialogues whose last message alone is longer than the model's window are left out. Every process
    returns the replies of all. Raises the errors of `SharedReplies.collect`.
    """
    greedy = settings.model_copy(update={"temperature": 0.0})
    questions, queries = [], []
    for dialogue in dialogues:
        index = reference_index(dialogue.turns)
        assert index is not None, "choose_dialogues keeps only dialogues with a reply"
        history = dialogue.turns[:index]
        with suppress(DataError):
            queries.append(generator.query(history, greedy))
            questions.append((spoken(history), dialogue.turns[index]))
    own = shared.own_items(np.array([query.size for query in queries], np.int64))
    num_left_out = len(dialogues) - len(queries) if shared.world.is_first else 0

    def generate() -> dict[int, Reply]:
        if num_left_out:
            shared.count(num_left_out)
        replies = generator.answer(
            [queries[number] for number in own],
            greedy,
            on_reply=lambda done: shared.count(num_left_out + done),
            on_token=shared.raise_if_stopped,
        )
        return dict(zip(own, replies, strict=True))

    answers = shared.collect(generate)
    return [
        SampleReply(said, real.text, answers[number].text, answers[number].stopped, real.references)
        for number, (said, real) in enumerate(questions)
    ]


def spoken(turns: Sequence[Turn]) -> tuple[tuple[str, str], ...]:
    """Return the role and the text of each turn, with its calls; never empty."""
    return tuple(
        (turn.role, turn.content if turn.is_call else turn.text or turn.tool_data) for turn in turns
    )
