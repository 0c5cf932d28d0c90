"""One forward pass that appends different numbers of tokens to rows of their own.

In a continuous batch, some rows grow by a token while others read a part of their prompt. The
matrix products are computed for all new tokens at once: with a few tokens they cost mostly the
reading of the weights, so the tokens of a prompt are almost free. Attention is computed row by row,
without padding. So rows join and leave without any copy.

Shapes: N new tokens, T new tokens of one row, S slots, H heads of keys and values, D width of a
head, V vocabulary, E width of the model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from convo_cli.model.decoding.passes.fast_rows import FastRows, Network
from convo_cli.model.decoding.passes.forward import Ids


def read_together(network: Network, parts: Sequence[tuple[FastRows, Ids]]) -> Tensor:
    """Append tokens to each row, and return the logits of the next ones, (rows, V).

    Each row is a batch of its own. If the pass is interrupted, no row changes.
    """
    one_pass = _Pass(network, parts)
    places = torch.cat([torch.arange(row.num_used, row.num_used + len(ids)) for row, ids in parts])
    ids = torch.tensor([token for _, ids in parts for token in ids])
    hidden = network.hidden(ids.unsqueeze(1), places.unsqueeze(1), one_pass)  # (N, E)
    ends = torch.tensor([len(ids) for _, ids in parts]).cumsum(0) - 1
    logits = network.logits(hidden[ends])
    for row, new in parts:
        row.num_used += len(new)
    return logits


class _Pass:
    """Stands for the rows in `Network.hidden`, to which each new token is a row of one token."""

    def __init__(self, network: Network, parts: Sequence[tuple[FastRows, Ids]]) -> None:
        self._sizes = [len(ids) for _, ids in parts]
        for (row, _), size in zip(parts, self._sizes, strict=True):
            row.reserve(size)
        shape = (sum(self._sizes), 2, network.num_heads, 1, network.head_width)
        self._new = torch.empty(shape)
        # With many short rows, the calls of torch cost as much as attention itself.
        new = self._new.squeeze(3).split(self._sizes)  # each (T, 2, H, D)
        masks = [
            _causal(row.num_used, size) if size > 1 and row.num_used else None
            for (row, _), size in zip(parts, self._sizes, strict=True)
        ]
        rows = [row for row, _ in parts]
        self._parts = [
            (row, row.num_used, size, own.permute(1, 2, 0, 3), mask)
            for row, size, own, mask in zip(rows, self._sizes, new, masks, strict=True)
        ]

    def new_slots(self, layer: int) -> Tensor:
        """Return where the new keys and values go, (N, 2, H, 1, D), until `attend`."""
        return self._new

    def attend(self, layer: int, query: Tensor, scale: float) -> Tensor:
        """Return the attention of queries (N, heads, 1, D) to the slots of their rows, (N, E)."""
        num_heads, num_shared, width = query.shape[1], self._new.shape[2], query.shape[3]
        found = []
        for own, (row, used, size, new, mask) in zip(
            query.split(self._sizes), self._parts, strict=True
        ):
            slots = row.slots[layer]  # (1, 2, H, S, D)
            slots.narrow(3, used, size).copy_(new)
            keys, values = slots.narrow(3, 0, used + size).unbind(1)
            if size == 1:  # heads that share keys are like several queries
                if num_heads != num_shared:
                    own = own.reshape(1, num_shared, -1, width)
                out = scaled_dot_product_attention(own, keys, values, scale=scale)
                found.append(out.reshape(1, -1))
            else:
                out = scaled_dot_product_attention(
                    own.transpose(0, 2), keys, values, mask, is_causal=mask is None, scale=scale,
                    enable_gqa=num_heads != num_shared,
                )  # fmt: skip
                found.append(out.transpose(1, 2).reshape(size, -1))
        return torch.cat(found)


def _causal(used: int, size: int) -> Tensor:  # (T, S)
    """Return whether each new token attends to each slot."""
    return torch.ones((size, used + size), dtype=torch.bool).tril_(used)
