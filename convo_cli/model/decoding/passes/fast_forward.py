"""Forward passes over a copy of the model's weights, for a CPU.

For one row, `torch.nn.functional.linear` reads the weights at half of the memory bandwidth that
`torch.mm` reaches with the transposed matrix. In a small model, the Python code of transformers
costs more than the arithmetic. So a network keeps its matrices as (in, out), and uses few
operations.

Shapes: T tokens, N positions, H heads of keys and values, D width of a head, V vocabulary, E width
of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import psutil
import torch
from torch import Tensor

from convo_cli.model.decoding.passes.fast_rows import FastRows, Network
from convo_cli.model.decoding.passes.forward import Ids, Pass
from convo_cli.model.decoding.passes.together import read_together

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class FastPass:
    """A dialogue that the network has read, with its keys and values."""

    def __init__(self, network: Network, hidden: Tensor, slots: Sequence[Tensor]) -> None:
        self.slots = slots  # (1, 2, H, T, D) of each layer
        self._network = network
        self._hidden = hidden  # (T, E)

    def logits(self, positions: Ids) -> Tensor:
        """Return the logits (N, V) of the token after each of these positions."""
        return self._network.logits(self._hidden[list(positions)])


class FastForward:
    """Forward passes of a network."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def start(self, prompts: Sequence[Ids], room: int) -> tuple[FastRows, Tensor]:
        """Read the prompts in one padded batch."""
        lengths = [len(prompt) for prompt in prompts]
        width = max(lengths)
        ids = torch.zeros((len(prompts), width), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
        rows = FastRows(self._network, lengths, width, room)
        return rows, self._network.logits(rows.read(ids)[:, -1])

    def new_row(self, size: int) -> FastRows:
        """Return a row without tokens, with slots for this number of them."""
        return FastRows(self._network, [size], size, 0)

    def read_together(self, parts: Sequence[tuple[FastRows, Ids]]) -> Tensor:
        """Append tokens to each row, a batch of its own; return the next logits, (rows, V)."""
        return read_together(self._network, parts)

    def read(self, ids: Ids, positions: Ids) -> FastPass:
        """Read a dialogue in one pass."""
        rows = FastRows(self._network, [len(ids)], len(ids), 0)
        hidden = rows.read(torch.tensor([ids]))[0]  # (T, E)
        return FastPass(self._network, hidden, rows.slots)

    def branch(self, parts: Sequence[tuple[Pass, int]], room: int) -> FastRows:
        """Copy the first slots of each dialogue into one padded batch."""
        lengths = [length for _, length in parts]
        width = max(lengths)
        rows = FastRows(self._network, lengths, width, room)
        for layer, slots in enumerate(rows.slots):
            for row, (one, length) in enumerate(parts):
                assert isinstance(one, FastPass), "passes and rows belong to the same forward"
                slots[row, :, :, width - length : width] = one.slots[layer][0, :, :, :length]
        rows.num_used = width
        return rows


def fits_memory(model: PreTrainedModel) -> bool:
    """Return whether a copy of all weights fits into half of the free memory."""
    size = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    free: int = psutil.virtual_memory().available
    return size <= free // 2
