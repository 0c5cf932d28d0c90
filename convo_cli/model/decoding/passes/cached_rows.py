"""Rows of a batch in transformers' own cache, or without a cache.

Rows of a batch are padded on the left, so that all grow at the same slot of the cache. Slots that
are padding of every row are dropped.

Shapes: B rows, S slots of the cache, T tokens, H heads, D width of a head, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import DynamicCache, DynamicLayer

from convo_cli.model.decoding.passes.forward import Ids
from convo_cli.model.decoding.passes.model_call import ModelCall, NamedCache


class CachedRows:
    """Rows of a batch: their mask, their cache, and the ids that are not in the cache yet."""

    def __init__(
        self, call: ModelCall, ids: Tensor, mask: Tensor, cache: DynamicCache | None = None
    ) -> None:
        self._call = call
        self._ids = ids  # (B, T) not yet read; all tokens if there is no cache
        self._mask = mask  # (B, S)
        self._cache: NamedCache | None = None if cache is None else ("past_key_values", cache)

    @property
    def num_tokens(self) -> list[int]:
        """Return the number of tokens of each row."""
        lengths: list[int] = self._mask.sum(1).tolist()
        return lengths

    @property
    def num_bytes(self) -> int:
        """Return the memory of keys and values; 0 if the cache has none."""
        layers = getattr(self._cache[1], "layers", ()) if self._cache is not None else ()
        tensors = [getattr(layer, name, None) for layer in layers for name in ("keys", "values")]
        return sum(one.numel() * one.element_size() for one in tensors if one is not None)

    def read(self) -> Tensor:
        """Read the ids, and return the logits of the next tokens, (B, V)."""
        output = self._call(self._ids, self._mask, self._cache)
        self._cache = self._call.cache_of(output)
        logits: Tensor = output.logits[:, -1]
        return logits

    def step(self, tokens: Ids) -> Tensor:
        """Append a token to each row and return the logits of the next one, (B, V)."""
        return self._append(torch.tensor(tokens, device=self._mask.device).unsqueeze(1))

    def extend(self, ids: Ids) -> Tensor:
        """Append tokens to the only row; return the logits of the next one, (1, V)."""
        self._require_one()
        if not ids:
            raise ValueError("there is no token to read")
        return self._append(torch.tensor([ids], device=self._mask.device))

    def cut(self, length: int) -> None:
        """Keep only the first ``length`` tokens of the only row.

        An interrupted pass may have added more slots to some layers than to others, so each layer
        is cut to this length.
        """
        self._require_one()
        if not 0 <= length <= self._mask.shape[1]:
            raise ValueError(f"the row has {self._mask.shape[1]} tokens, not {length}")
        self._change(lambda slots: slots[..., :length, :])
        self._mask = self._mask[:, :length]
        if self._cache is None:
            self._ids = self._ids[:, :length]

    def keep(self, places: Sequence[int]) -> None:
        """Keep only the rows at these places, in this order."""
        chosen = torch.tensor(places, device=self._mask.device)
        self._ids, self._mask = self._ids[chosen], self._mask[chosen]
        if self._cache is not None:
            self._cache[1].reorder_cache(chosen)
            if not _is_plain(self._cache[1]):
                return
        dropped = self._mask.shape[1] - max(self.num_tokens)
        if dropped:
            self._change(lambda slots: slots[..., dropped:, :])
            self._mask = self._mask[:, dropped:]
            if self._cache is None:
                self._ids = self._ids[:, dropped:]

    def take(self, place: int) -> CachedRows:
        """Copy one row, without its padding."""
        padding = self._mask.shape[1] - self.num_tokens[place]
        row = CachedRows(
            self._call, self._ids[place : place + 1], self._mask[place : place + 1, padding:]
        )
        if self._cache is None:
            row._ids = row._ids[:, padding:]
        else:
            copied = DynamicCache()
            for index, layer in enumerate(plain_layers(self._cache[1])):
                keys, values = (
                    slots[place : place + 1, :, padding:].clone()
                    for slots in (layer.keys, layer.values)
                )
                copied.update(keys, values, index)
            row._cache = self._cache[0], copied
        return row

    def join(self, other: CachedRows) -> None:
        """Append the rows of another batch; the narrower batch is padded."""
        width = max(self._mask.shape[1], other._mask.shape[1])
        if self._cache is not None and other._cache is not None:
            own, others = plain_layers(self._cache[1]), plain_layers(other._cache[1])
            for layer, more in zip(own, others, strict=True):
                layer.keys = _joined(layer.keys, more.keys, width)
                layer.values = _joined(layer.values, more.values, width)
            self._ids = self._ids.new_zeros((len(self._ids) + len(other._ids), 0))
        else:
            self._ids = _joined(self._ids[..., None], other._ids[..., None], width)[..., 0]
        self._mask = _joined(self._mask[..., None], other._mask[..., None], width)[..., 0]

    def _append(self, new: Tensor) -> Tensor:
        self._mask = torch.cat([self._mask, torch.ones_like(new)], dim=1)
        self._ids = torch.cat([self._ids, new], dim=1) if self._cache is None else new
        return self.read()

    def _require_one(self) -> None:
        if len(self._mask) != 1:
            raise ValueError(f"the batch has {len(self._mask)} rows")

    def _change(self, function: Callable[[Tensor], Tensor]) -> None:
        """Apply a function to the keys and values of each layer, (B, H, S, D)."""
        if self._cache is not None:
            for layer in plain_layers(self._cache[1]):
                layer.keys, layer.values = function(layer.keys), function(layer.values)


def _joined(one: Tensor, other: Tensor, width: int) -> Tensor:
    """Return the rows of both tensors (B, ..., S, D), padded on the left to ``width`` slots."""
    return torch.cat([pad(rows, (0, 0, width - rows.shape[-2], 0)) for rows in (one, other)])


def plain_layers(cache: Any) -> list[Any]:
    """Return the layers of a cache; TypeError if it does not hold every key and value."""
    if not _is_plain(cache):
        raise TypeError(f"{type(cache).__name__} cannot be cut at any token")
    return list(cache.layers)


def _is_plain(cache: object) -> bool:
    return isinstance(cache, DynamicCache) and all(
        type(layer) is DynamicLayer for layer in cache.layers
    )
