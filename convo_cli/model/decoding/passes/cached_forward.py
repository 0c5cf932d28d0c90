"""Forward passes by transformers' own code and caches, for any causal language model.

A model without a usable cache reads each row again for every token.

Shapes: B rows, S slots of the cache, T tokens, N positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from convo_cli.model.decoding.passes.cached_rows import CachedRows, plain_layers
from convo_cli.model.decoding.passes.forward import Ids, Pass
from convo_cli.model.decoding.passes.model_call import ModelCall

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class CachedForward:
    """Forward passes of a model; without a cache, they are correct for every model."""

    def __init__(self, model: PreTrainedModel, *, has_cache: bool = True) -> None:
        self.has_cache = has_cache
        self.call = ModelCall(model, has_cache=has_cache)
        self._device = model.device

    def start(self, prompts: Sequence[Ids], room: int) -> tuple[CachedRows, Tensor]:
        """Read the prompts in one padded batch."""
        width = max(map(len, prompts))
        ids = torch.zeros((len(prompts), width), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        rows = CachedRows(self.call, ids.to(self._device), mask.to(self._device))
        return rows, rows.read()

    def read(self, ids: Ids, positions: Ids) -> CachedPass:
        """Read a dialogue as training does, without padding."""
        row = torch.tensor([ids], device=self._device)  # (1, T)
        wanted = torch.tensor(positions, device=self._device)
        output = self.call(row, torch.ones_like(row), None, keep=wanted)
        logits: Tensor = output.logits[0]
        # Some models accept `logits_to_keep`, but not as positions.
        if len(logits) == len(ids) != len(positions):
            logits = logits[wanted]
        return CachedPass(logits, positions, output.past_key_values)

    def branch(self, parts: Sequence[tuple[Pass, int]], room: int) -> CachedRows:
        """Copy the first slots of each cache into one padded batch."""
        width = max(length for _, length in parts)
        device = self._device
        mask = torch.zeros((len(parts), width), dtype=torch.long, device=device)
        for row, (_, length) in enumerate(parts):
            mask[row, width - length :] = 1
        cache = DynamicCache()
        read = [(_layers_of(one), length) for one, length in parts]
        for index, layer in enumerate(read[0][0]):
            shape = (len(parts), layer.keys.shape[1], width)
            keys = layer.keys.new_zeros((*shape, layer.keys.shape[3]))
            values = layer.values.new_zeros((*shape, layer.values.shape[3]))
            for row, (layers, length) in enumerate(read):
                keys[row, :, width - length :] = layers[index].keys[0, :, :length]
                values[row, :, width - length :] = layers[index].values[0, :, :length]
            cache.update(keys, values, index)
        empty = torch.zeros((len(parts), 0), dtype=torch.long, device=device)
        return CachedRows(self.call, empty, mask, cache)


class CachedPass:
    """A dialogue that the model has read, with its cache."""

    def __init__(self, logits: Tensor, positions: Ids, cache: Any) -> None:
        self.cache = cache
        self._logits = logits  # (N, V)
        self._places = {position: place for place, position in enumerate(positions)}

    def logits(self, positions: Ids) -> Tensor:
        """Return the logits (n, V) of the token after each of these requested positions."""
        return self._logits[[self._places[position] for position in positions]]


def _layers_of(one: Pass) -> list[Any]:
    assert isinstance(one, CachedPass), "passes and rows belong to the same forward"
    return plain_layers(one.cache)
