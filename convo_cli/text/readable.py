"""Readable form of an example: its text in stretches of targets and stretches of context."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Literal

import numpy as np

from convo_cli.text.encoder import DialogueEncoder
from convo_cli.tokens.store import ASSISTANT_TARGET, NO_TARGET, USER_TARGET, Example

_NAMES: dict[int, Literal["none", "assistant", "user"]] = {
    NO_TARGET: "none",
    ASSISTANT_TARGET: "assistant",
    USER_TARGET: "user",
}


@dataclass(frozen=True, slots=True)
class Stretch:
    """Neighbouring tokens of one kind; ``text`` spells special tokens out."""

    target: Literal["none", "assistant", "user"]
    text: str
    ids: tuple[int, ...]


def stretches(encoder: DialogueEncoder, example: Example) -> list[Stretch]:
    """Cut an example wherever targets begin or end."""
    bounds = [0, *(np.flatnonzero(np.diff(example.targets)) + 1).tolist(), len(example.targets)]
    return [
        Stretch(
            _NAMES[int(example.targets[begin])],
            _spelled(encoder, ids := example.input_ids[begin:end].tolist()),
            tuple(ids),
        )
        for begin, end in pairwise(bounds)
    ]


def _spelled(encoder: DialogueEncoder, ids: list[int]) -> str:
    names = encoder.tokenizer.convert_ids_to_tokens
    return "".join(
        "".join(names(list(run))) if is_special else encoder.decode(list(run))
        for is_special, run in groupby(ids, encoder.is_special)
    )
