"""Replies generated from the real history of validation dialogues."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from convo_cli.config.schema import GenerationSettings
from convo_cli.data.dialogue import Dialogue, Turn
from convo_cli.errors import DataError
from convo_cli.events import SampleReply
from convo_cli.model.generation import Generator


def choose_dialogues(dialogues: Iterable[Dialogue], count: int, seed: int) -> list[Dialogue]:
    """A fixed random choice of dialogues that have something to answer, in one pass and bounded memory."""
    chosen: list[tuple[int, Dialogue]] = []
    rng = random.Random(seed)
    candidates = (dialogue for dialogue in dialogues if _reply_index(dialogue) is not None)
    for position, dialogue in enumerate(candidates):  # reservoir sampling (Vitter 1985, algorithm R)
        if position < count:
            chosen.append((position, dialogue))
        elif (slot := rng.randrange(position + 1)) < count:
            chosen[slot] = (position, dialogue)
    return [dialogue for _, dialogue in sorted(chosen, key=lambda pair: pair[0])]


def reply_to_all(
    generator: Generator,
    dialogues: Sequence[Dialogue],
    settings: GenerationSettings,
    on_reply: Callable[[int], None] = lambda done: None,
) -> list[SampleReply]:
    """Answer the last assistant turn of each dialogue greedily, given everything said before it.

    Dialogues whose last message alone does not fit the model are left out.
    """
    greedy = settings.model_copy(update={"temperature": 0.0})
    replies = []
    for done, dialogue in enumerate(dialogues, 1):
        index = _reply_index(dialogue)
        assert index is not None, "choose_dialogues keeps only dialogues with a reply"
        history = dialogue.turns[:index]
        with suppress(DataError):
            reply = generator.reply(history, greedy)
            spoken = tuple((turn.role, turn.text) for turn in history)
            replies.append(SampleReply(spoken, dialogue.turns[index].text, reply.text, reply.stopped))
        on_reply(done)
    return replies


def _reply_index(dialogue: Dialogue) -> int | None:
    """The last assistant turn that answers something and that the data does not exclude: it is the reference."""
    turns: Sequence[Turn] = dialogue.turns
    candidates = [
        k
        for k in range(1, len(turns))
        if turns[k].role == "assistant" and turns[k].is_trained and turns[k - 1].role != "system"
    ]
    return candidates[-1] if candidates else None
