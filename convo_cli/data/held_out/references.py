"""Reference replies: the turn that a reply is scored against, and a random choice of dialogues."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from convo_cli.data.dialogue import HEAD_ROLES, Dialogue, Turn


def reference_indices(turns: Sequence[Turn]) -> list[int]:
    """Return the indices of the trained assistant turns that answer another turn."""
    return [
        k
        for k in range(1, len(turns))
        if turns[k].is_reply and turns[k].is_trained and turns[k - 1].role not in HEAD_ROLES
    ]


def reference_index(turns: Sequence[Turn]) -> int | None:
    """Return the last of `reference_indices`, or None."""
    indices = reference_indices(turns)
    return indices[-1] if indices else None


def choose_dialogues(dialogues: Iterable[Dialogue], count: int, seed: int) -> list[Dialogue]:
    """Choose dialogues with a reference at random, in one pass; a count of 0 reads nothing."""
    if not count:
        return []
    chosen: list[tuple[int, Dialogue]] = []
    rng = random.Random(seed)
    candidates = (dialogue for dialogue in dialogues if reference_index(dialogue.turns) is not None)
    # Reservoir sampling in bounded memory (Vitter 1985, algorithm R).
    for position, dialogue in enumerate(candidates):
        if position < count:
            chosen.append((position, dialogue))
        elif (slot := rng.randrange(position + 1)) < count:
            chosen[slot] = (position, dialogue)
    return [dialogue for _, dialogue in sorted(chosen, key=lambda pair: pair[0])]
