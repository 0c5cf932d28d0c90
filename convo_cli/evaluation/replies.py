"""Replies generated from the real history of validation dialogues."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from convo_cli.config.schema import GenerationSettings
from convo_cli.data.dialogue import Dialogue, Turn
from convo_cli.data.held_out.references import reference_index
from convo_cli.errors import DataError
from convo_cli.events import SampleReply
from convo_cli.model.decoding.generator import Generator


def reply_to_all(
    generator: Generator,
    dialogues: Sequence[Dialogue],
    settings: GenerationSettings,
    on_reply: Callable[[int], None] = lambda done: None,
) -> list[SampleReply]:
    """Answer the last assistant turn of each dialogue greedily, given everything said before it.

    Dialogues whose last message alone is longer than the model's window are left out.
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
    num_left_out = len(dialogues) - len(queries)
    if num_left_out:
        on_reply(num_left_out)
    replies = generator.answer(queries, greedy, on_reply=lambda done: on_reply(num_left_out + done))
    return [
        SampleReply(said, real.text, reply.text, reply.stopped, real.references)
        for (said, real), reply in zip(questions, replies, strict=True)
    ]


def spoken(turns: Sequence[Turn]) -> tuple[tuple[str, str], ...]:
    """Return the role and the text of each turn, with its calls; never empty."""
    return tuple(
        (turn.role, turn.content if turn.is_call else turn.text or turn.tool_data) for turn in turns
    )
