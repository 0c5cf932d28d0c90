"""Loss of a step on each training file, from the nll of its targets.

Shapes: n examples of the step, T their targets in this process, F files.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convo_cli.model.batches.loss import Batch
from convo_cli.tokens.store import Example


def count_targets(
    examples: Sequence[Example], target_kinds: Collection[int]
) -> NDArray[np.int64]:  # (n,)
    """Return the number of targets of each example, as they are in a batch."""
    lengths = np.array([len(example.targets) for example in examples])
    starts = np.cumsum(lengths) - lengths
    is_target = np.isin(
        np.concatenate([example.targets for example in examples]), sorted(target_kinds)
    )
    is_target[starts] = False  # the first token of an example is given
    counts: NDArray[np.int64] = np.add.reduceat(is_target, starts, dtype=np.int64)
    return counts


class FileLosses:
    """Nll of the targets of a step, kept until the step is over, then summed by file.

    With a single training file, nothing is kept.
    """

    def __init__(self, num_files: int) -> None:
        self._num_files = num_files if num_files > 1 else 0
        self._each: dict[int, Tensor] = {}
        self._files = np.empty(0, np.int64)
        self._counts = [0] * self._num_files

    def begin(
        self, files: NDArray[np.integer], counts: NDArray[np.int64], own: NDArray[np.int64]
    ) -> None:
        """Begin a step, given the file and the number of targets of each example, (n,).

        ``own`` are the examples of this process, in the order of its batches.
        """
        self._each.clear()
        if self._num_files:
            self._files = np.repeat(files[own], counts[own])  # (T,)
            self._counts = [int(counts[files == file].sum()) for file in range(self._num_files)]

    def add(self, batch: Batch, each: Tensor) -> None:
        """Keep the nll of the targets of a batch; a repeated step (fp16) replaces it."""
        if self._num_files:
            # The copy waits for nothing; it is complete when the loop has read the step's loss.
            self._each[id(batch)] = each.to("cpu", non_blocking=True)

    def sums(self) -> list[float]:
        """Return the summed nll of each file in this process, (F,), after the whole step."""
        if not self._num_files:
            return []
        each = torch.cat([torch.zeros(0), *self._each.values()])  # (T,)
        sums = np.bincount(self._files, each.double().numpy(), self._num_files)
        return [float(nll) for nll in sums]

    def result(self, sums: Sequence[float]) -> tuple[tuple[float | None, ...], tuple[int, ...]]:
        """Return the loss of each file, given the `sums` over all processes, and its targets."""
        means = (nll / num if num else None for nll, num in zip(sums, self._counts, strict=True))
        return tuple(means), tuple(self._counts)
