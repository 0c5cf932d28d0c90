"""Rows of a batch for a network of `networks`: keys and values in slots that are written in place.

Rows of a batch are padded on the left, so that all grow at the same slot. Slots that are padding of
every row are dropped, so the batch is never wider than its longest row.

Shapes: B rows, S slots, T tokens, H heads of keys and values, D width of a head, V vocabulary, E
width of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from convo_cli.model.decoding.passes.forward import Ids

_BLOCKED = -1e9
"""Added to the scores of masked slots; finite, so that a row with only masked slots has no NaN."""
_CHUNK = 512
"""Tokens that `extend` reads in one pass; their mask is at most 16 MiB for 8,192 slots."""
_SPARE = 64
"""Fewest free slots of a batch that needs new ones."""


class Slots(Protocol):
    """Storage of keys and values for a pass of a network, and attention to them."""

    def new_slots(self, layer: int) -> Tensor:
        """Return the slots of a layer into which the new keys and values go, (B, 2, H, T, D)."""

    def attend(self, layer: int, query: Tensor, scale: float) -> Tensor:
        """Return the attention of queries (B, heads, T, D) to all slots so far, (B * T, E)."""


class Network(Protocol):
    """The layers of one family of models."""

    num_layers: int
    num_heads: int
    """Heads of keys and values."""
    head_width: int
    max_length: int
    """Most tokens of a row."""

    def hidden(self, ids: Tensor, positions: Tensor, rows: Slots) -> Tensor:
        """Read ids (B, T), append their keys and values to the rows; return (B * T, E)."""

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits (N, V) of hidden states (N, E)."""


class FastRows:
    """Rows of a batch.

    A batch of one row has no padding. Its tokens are in its first `num_used` slots. This number
    changes only after slots are written, so an interrupted pass leaves the row as it was.
    """

    def __init__(self, network: Network, lengths: Sequence[int], width: int, room: int) -> None:
        """Allocate slots: prompts of these lengths end at slot ``width``, ``room`` more follow.

        No slot is used yet.
        """
        self._network = network
        self.num_used = 0
        # Most replies are shorter than their limit.
        room = max(0, min(room, max(width, _SPARE), network.max_length - width))
        shape = (len(lengths), 2, network.num_heads, width + room, network.head_width)
        self._base = [torch.zeros(shape) for _ in range(network.num_layers)]  # keys, values
        self.slots = self._base
        """Slots of each layer, (B, 2, H, S, D): a part of the memory in ``_base``."""
        self._first = 0  # the slot of `_base` at which `slots` begin
        self._num_new = 0
        self._mask: Tensor | None = None
        self._step_mask: Tensor | None = None
        self._pad(torch.tensor([width - length for length in lengths]))

    @property
    def num_tokens(self) -> list[int]:
        """Return the number of tokens of each row."""
        lengths: list[int] = (self.num_used - self._padding).tolist()
        return lengths

    @property
    def num_bytes(self) -> int:
        """Return the memory of all slots, also of unused ones."""
        return sum(base.numel() * base.element_size() for base in self._base)

    def read(self, ids: Tensor) -> Tensor:
        """Append tokens (B, T) to all rows; return hidden states (B, T, E)."""
        size, start = ids.shape[1], self.num_used
        self.reserve(size)
        places = torch.arange(start, start + size)
        positions = (places - self._padding.unsqueeze(1)).clamp_(min=0)  # (B, T)
        self._num_new = size
        self._mask = self._mask_of(places)
        hidden = self._network.hidden(ids, positions, self)
        self.num_used = start + size
        return hidden.view(*ids.shape, -1)

    def step(self, tokens: Ids) -> Tensor:
        """Append a token to each row and return the logits of the next one, (B, V)."""
        end = self.num_used + 1
        self.reserve(1)
        self._num_new = 1
        self._mask = None if self._step_mask is None else self._step_mask[..., :end]
        ids = torch.tensor(tokens).unsqueeze(1)  # (B, 1)
        positions = (self.num_used - self._padding).unsqueeze(1)  # (B, 1)
        logits = self._network.logits(self._network.hidden(ids, positions, self))
        self.num_used = end
        return logits

    def extend(self, ids: Ids) -> Tensor:
        """Append tokens to the only row; return the logits of the next one, (1, V)."""
        self._require_one()
        if not ids:
            raise ValueError("there is no token to read")
        self.reserve(len(ids))
        for start in range(0, len(ids), _CHUNK):
            hidden = self.read(torch.tensor([ids[start : start + _CHUNK]]))
        return self._network.logits(hidden[:, -1])

    def cut(self, length: int) -> None:
        """Keep only the first ``length`` tokens of the only row."""
        self._require_one()
        if not 0 <= length <= self.num_used:
            raise ValueError(f"the row has {self.num_used} tokens, not {length}")
        self.num_used = length

    def keep(self, places: Sequence[int]) -> None:
        """Keep only the rows at these places, in this order."""
        for slots in self.slots:
            for place, kept in enumerate(places):
                if place != kept:  # a place is filled from a later one, so nothing is lost
                    slots[place, :, :, : self.num_used] = slots[kept, :, :, : self.num_used]
        self._pad(self._padding[torch.tensor(places)])

    def take(self, place: int) -> FastRows:
        """Copy one row, without its padding and without free slots."""
        padding = int(self._padding[place])
        length = self.num_used - padding
        row = FastRows(self._network, [length], length, 0)
        for new, slots in zip(row.slots, self.slots, strict=True):
            new[0] = slots[place, :, :, padding : self.num_used]
        row.num_used = length
        return row

    def join(self, other: FastRows) -> None:
        """Append the rows of another batch; the narrower batch is padded."""
        num_own, num_others = len(self._padding), len(other._padding)
        width = max(self.num_used, other.num_used)
        shift = width - self.num_used
        num_rows, base = num_own + num_others, self._base[0]
        if num_rows > len(base) or shift > self._first or width > self._num_slots + shift:
            self._allocate(max(len(base), _power_of_2(num_rows)), width, shift)
        elif shift:  # slots of earlier padding are used again; masked values must be finite
            self._first -= shift
            for base in self._base:
                base[:num_own, :, :, self._first : self._first + shift] = 0.0
        begin, end = self._first + width - other.num_used, self._first + width
        for base, slots in zip(self._base, other.slots, strict=True):
            new = base[num_own : num_own + num_others]
            new[:, :, :, self._first : begin] = 0.0
            new[:, :, :, begin:end] = slots[:, :, :, : other.num_used]
        self.num_used = width
        self._pad(torch.cat([self._padding + shift, other._padding + width - other.num_used]))

    def reserve(self, size: int) -> None:
        """Make sure that there are free slots for this number of tokens."""
        if self.num_used + size > self._num_slots:
            self._grow(self.num_used + size)

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

    @property
    def _num_slots(self) -> int:
        return self.slots[0].shape[3]

    def _require_one(self) -> None:
        if len(self._padding) != 1:
            raise ValueError(f"the batch has {len(self._padding)} rows")

    def _mask_of(self, places: Tensor) -> Tensor | None:
        """Return what is added to the scores of new tokens at these slots, (B or 1, 1, T, S)."""
        end = self.num_used + len(places)
        mask = None if self._step_mask is None else self._step_mask[..., :end]
        if len(places) == 1 or (mask is None and self.num_used == 0):
            return mask  # without a mask, the attention to the first tokens is causal
        later = torch.arange(end) > places.unsqueeze(1)  # (T, S)
        own = torch.zeros(later.shape).masked_fill_(later, _BLOCKED)
        return own[None, None] if mask is None else mask.masked_fill(later, _BLOCKED)

    def _pad(self, padding: Tensor) -> None:
        """Take the padding of each row, (B,), and drop the slots that are padding of all rows."""
        dropped = int(padding.min())
        self._padding = padding - dropped
        self.num_used -= dropped
        self._first += dropped
        self._show()

    def _show(self) -> None:
        """Set the views of the slots and the mask of padding."""
        num_rows = len(self._padding)
        self.slots = [base[:num_rows, :, :, self._first :] for base in self._base]
        self._step_mask = None
        if self._padding.any():
            is_padding = torch.arange(self._num_slots) < self._padding.unsqueeze(1)  # (B, S)
            self._step_mask = torch.zeros(is_padding.shape).masked_fill_(is_padding, _BLOCKED)
            self._step_mask = self._step_mask[:, None, None]  # (B, 1, 1, S)

    def _grow(self, needed: int) -> None:
        """Allocate more slots; memory of rows that left is freed."""
        self._allocate(min(len(self._base[0]), _power_of_2(len(self._padding))), needed)

    def _allocate(self, num_rows: int, needed: int, shift: int = 0) -> None:
        """Move the slots to new memory with free slots, and ``shift`` slots to the right."""
        size = max(needed, min(needed + max(needed // 2, _SPARE), self._network.max_length))
        bases = []
        for slots in self.slots:
            used = slots[:, :, :, : self.num_used]
            base = slots.new_zeros((num_rows, *slots.shape[1:3], size, slots.shape[4]))
            base[: len(used), :, :, shift : shift + self.num_used] = used
            bases.append(base)
        self._base, self._first = bases, 0
        self._show()


def _power_of_2(number: int) -> int:
    """Return the next power of 2, so that a batch that gains rows is seldom allocated again."""
    return 1 << (number - 1).bit_length()
