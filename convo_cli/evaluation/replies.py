"""Replies generated from the real history of validation dialogues."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from convo_cli.config.schema import GenerationSettings
from convo_cli.data.dialogue import Dialogue
from convo_cli.data.held_out.references import reference_index
from convo_cli.errors import DataError
from convo_cli.events import SampleReply
from convo_cli.model.generation import Generator


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
    replies = []
    for done, dialogue in enumerate(dialogues, 1):
        index = reference_index(dialogue.turns)
        assert index is not None, "choose_dialogues keeps only dialogues with a reply"
        history = dialogue.turns[:index]
        with suppress(DataError):
            reply = generator.reply(history, greedy)
            spoken = tuple((turn.role, turn.text or turn.tool_data) for turn in history)
            replies.append(
                SampleReply(spoken, dialogue.turns[index].text, reply.text, reply.stopped)
            )
        on_reply(done)
    return replies
