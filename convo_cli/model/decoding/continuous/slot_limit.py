"""Limits of a continuous batch: rows, and slots of keys and values by number and by free memory."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from convo_cli.model.decoding.queries import MAX_SLOTS
from convo_cli.model.memory.free import free_bytes

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class SlotLimit:
    """Decides whether another row fits into a batch."""

    def __init__(self, model: PreTrainedModel, max_rows: int, *, is_padded: bool) -> None:
        self.max_rows = max_rows
        self._is_padded = is_padded
        self._bytes_per_slot = _bytes_per_slot(model)
        self._device = model.device

    def fits(self, size: int, others: Collection[int]) -> bool:
        """Return whether a row of this size fits beside rows of other sizes, in tokens.

        A row alone always fits: if memory is too small for it, only its own request fails.
        """
        if not others:
            return True
        if len(others) >= self.max_rows:
            return False
        if self._is_padded:
            before, after = len(others) * max(others), (len(others) + 1) * max(size, *others)
        else:
            before, after = sum(others), sum(others) + size
        if after > MAX_SLOTS:
            return False
        # When a row needs more slots, all of its slots are copied.
        needed = (2 * after - before) * self._bytes_per_slot
        return needed <= free_bytes(self._device) // 2


def _bytes_per_slot(model: PreTrainedModel) -> int:
    """Return the bytes of the keys and values of one token; an estimate for unusual models."""
    config: Any = model.config.get_text_config()
    width = getattr(config, "hidden_size", 0) or 0
    heads = getattr(config, "num_attention_heads", 1) or 1
    layers = getattr(config, "num_hidden_layers", 1) or 1
    shared = getattr(config, "num_key_value_heads", None) or heads
    head_width = getattr(config, "head_dim", None) or width // heads
    return int(2 * layers * shared * head_width * model.dtype.itemsize)
