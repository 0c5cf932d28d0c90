"""Forward passes over a copy of the model's weights, for a CPU.

For one row, `torch.nn.functional.linear` reads the weights at half of the memory bandwidth that
`torch.mm` reaches with the transposed matrix. In a small model, the Python code of transformers
costs more than the arithmetic. So a network keeps its matrices as (in, out), and uses few
operations.

Rows of a batch are padded on the left, so that all grow at the same slot.

Shapes: B rows, S slots, T tokens, N positions, H heads of keys and values, D width of a head,
V vocabulary, E width of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import psutil
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from convo_cli.model.decoding.passes.forward import Ids, Pass

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_BLOCKED = -1e9
"""Added to the scores of masked slots; finite, so that a row with only masked slots has no NaN."""


class Network(Protocol):
    """The layers of one family of models."""

    num_layers: int
    num_heads: int
    """Heads of keys and values."""
    head_width: int

    def hidden(self, ids: Tensor, positions: Tensor, rows: FastRows) -> Tensor:
        """Read ids (B, T), append their keys and values to the rows; return (B * T, E)."""

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits (N, V) of hidden states (N, E)."""


class FastRows:
    """Rows of a batch: keys and values in slots that are allocated once."""

    def __init__(self, network: Network, lengths: Sequence[int], width: int, room: int) -> None:
        """Allocate slots: prompts of these lengths end at slot ``width``, ``room`` more follow."""
        shape = (len(lengths), 2, network.num_heads, width + room, network.head_width)
        self.slots = [torch.zeros(shape) for _ in range(network.num_layers)]  # keys, values
        self.num_used = 0
        self._network = network
        self._num_new = 0
        padding = torch.tensor([width - length for length in lengths])
        self._positions = (width - padding).unsqueeze(1)  # (B, 1) of the next token
        self._mask: Tensor | None = None
        self._step_mask: Tensor | None = None
        if padding.any():
            is_padding = torch.arange(width + room) < padding.unsqueeze(1)  # (B, S)
            self._step_mask = torch.zeros(is_padding.shape).masked_fill_(is_padding, _BLOCKED)
            self._step_mask = self._step_mask[:, None, None]  # (B, 1, 1, S)

    def read(self, ids: Tensor) -> Tensor:
        """Read the first tokens (B, T), padded on the left; return hidden states (B, T, E)."""
        size = ids.shape[1]
        positions = (torch.arange(size) - (size - self._positions)).clamp_(min=0)  # (B, T)
        if self._step_mask is not None:
            later = torch.ones((size, size), dtype=torch.bool).triu_(1)
            self._mask = self._step_mask[..., :size].masked_fill(later, _BLOCKED)  # (B, 1, T, T)
        self._num_new = size
        hidden = self._network.hidden(ids, positions, self)
        self.num_used += size
        return hidden.view(*ids.shape, -1)

    def step(self, tokens: Ids) -> Tensor:
        """Append a token to each row and return the logits of the next one, (B, V)."""
        self._num_new = 1
        end = self.num_used + 1
        self._mask = None if self._step_mask is None else self._step_mask[..., :end]
        ids = torch.tensor(tokens).unsqueeze(1)  # (B, 1)
        logits = self._network.logits(self._network.hidden(ids, self._positions, self))
        self.num_used = end
        self._positions = self._positions + 1
        return logits

    def keep(self, places: Sequence[int]) -> None:
        """Keep only the rows at these places, in this order."""
        for index, slots in enumerate(self.slots):
            for place, kept in enumerate(places):
                if place != kept:  # a place is filled from a later one, so nothing is lost
                    slots[place, :, :, : self.num_used] = slots[kept, :, :, : self.num_used]
            self.slots[index] = slots[: len(places)]
        chosen = torch.tensor(places)
        self._positions = self._positions[chosen]
        if self._step_mask is not None:
            self._step_mask = self._step_mask[chosen]

    def new_slots(self, layer: int) -> Tensor:
        """Return the slots of a layer into which the new keys and values go, (B, 2, H, T, D)."""
        return self.slots[layer].narrow(3, self.num_used, self._num_new)

    def attend(self, layer: int, query: Tensor, scale: float) -> Tensor:
        """Return the attention of queries (B, heads, T, D) to all slots so far, (B * T, E)."""
        size = self._num_new
        keys, values = self.slots[layer].narrow(3, 0, self.num_used + size).unbind(1)
        if size == 1:  # heads that share keys are like several queries
            query = query.reshape(len(query), keys.shape[1], -1, query.shape[-1])
            found = scaled_dot_product_attention(query, keys, values, self._mask, scale=scale)
            return found.reshape(len(query), -1)
        found = scaled_dot_product_attention(
            query, keys, values, self._mask, is_causal=self._mask is None, scale=scale,
            enable_gqa=query.shape[1] != keys.shape[1],
        )  # fmt: skip
        return found.transpose(1, 2).flatten(2).flatten(0, 1)


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
