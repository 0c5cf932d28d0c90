"""Encoded examples, side by side in flat arrays: what training reads instead of dialogues."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

NO_TARGET, ASSISTANT_TARGET, USER_TARGET = 0, 1, 2
"""What a token is to the loss. User targets count while `dialogue.train_on` is all or the curriculum says so."""


@dataclass(frozen=True, slots=True)
class Example:
    """One sequence to train on: a dialogue, or a window of a long one."""

    input_ids: NDArray[np.int32]  # (T,)
    targets: NDArray[np.uint8]  # (T,) one of the three kinds above; position 0 is never a target


@dataclass(frozen=True)
class TokenStore:
    """N examples as two flat arrays; example i is the slice ``offsets[i]:offsets[i + 1]`` of both."""

    input_ids: NDArray[np.int32]
    targets: NDArray[np.uint8]
    offsets: NDArray[np.int64]  # (N + 1,)
    num_dialogues: int

    @classmethod
    def build(cls, dialogues: Iterable[Sequence[Example]]) -> TokenStore:
        """Lay the windows of each dialogue side by side."""
        ids: list[NDArray[np.int32]] = [np.empty(0, np.int32)]
        targets: list[NDArray[np.uint8]] = [np.empty(0, np.uint8)]
        lengths = [0]
        num_dialogues = 0
        for windows in dialogues:
            num_dialogues += 1
            for example in windows:
                ids.append(example.input_ids)
                targets.append(example.targets)
                lengths.append(len(example.input_ids))
        return cls(np.concatenate(ids), np.concatenate(targets), np.cumsum(lengths, dtype=np.int64), num_dialogues)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Example:
        part = slice(self.offsets[index], self.offsets[index + 1])
        return Example(self.input_ids[part], self.targets[part])

    @property
    def num_tokens(self) -> int:
        return len(self.input_ids)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:  # (N,)
        return np.diff(self.offsets)

    def num_targets(self, kind: int) -> int:
        """How many tokens are targets of this kind."""
        return int(np.count_nonzero(self.targets == kind))
