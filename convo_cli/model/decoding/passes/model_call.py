"""Calls of a causal language model of transformers with a cache, whatever its parameters are.

Shapes: B rows, S slots of the cache, T tokens.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_CACHE_NAMES = ("past_key_values", "cache_params", "state")
"""Names of the cache in a model's output; the parameter of the model has the same name."""
NamedCache: TypeAlias = tuple[str, Any]
"""A cache, and the name of the model's parameter for it."""


class ModelCall:
    """Calls a model; without a cache, the result is correct for every model."""

    def __init__(self, model: PreTrainedModel, *, has_cache: bool) -> None:
        self._model = model
        self._has_cache = has_cache
        accepted = inspect.signature(model.forward).parameters
        self._has_positions = "position_ids" in accepted
        self._keeps_logits = "logits_to_keep" in accepted

    def __call__(
        self, ids: Tensor, mask: Tensor, cache: NamedCache | None, *, keep: int | Tensor = 1
    ) -> Any:
        """Call the model with new ids (B, T), and the mask (B, S) of all slots so far."""
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        if self._has_positions:
            positions = (mask.cumsum(-1) - 1).clamp(min=0)  # as in transformers' `generate`
            inputs["position_ids"] = positions[:, -ids.shape[1] :]
        if self._keeps_logits:
            inputs["logits_to_keep"] = keep
        if cache is not None:
            inputs[cache[0]] = cache[1]
        return self._model(**inputs, use_cache=self._has_cache)

    def cache_of(self, output: Any) -> NamedCache | None:
        """Return the name and value of the cache in the model's output, if it has one."""
        if not self._has_cache:
            return None
        for name in _CACHE_NAMES:
            if (value := getattr(output, name, None)) is not None:
                return name, value
        return None
