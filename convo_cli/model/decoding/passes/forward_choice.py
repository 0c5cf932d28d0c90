"""Choice of the forward passes for generation, each verified on the model's own logits.

`Forward` needs features that not every model of transformers supports correctly: a cache that
continues a row, left padding with explicit positions, a cache that can be cut at any token. So each
feature is used only if its logits equal those of a whole row without a cache (`probe`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from convo_cli.model.decoding.failures import CANNOT_COMPUTE
from convo_cli.model.decoding.passes.cached_forward import CachedForward
from convo_cli.model.decoding.passes.fast_forward import FastForward, fits_memory
from convo_cli.model.decoding.passes.forward import Forward
from convo_cli.model.decoding.passes.networks import has_fixed_rotations, network_for
from convo_cli.model.decoding.passes.probe import Probe
from convo_cli.text.encoder import DialogueEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_MOST_ROWS = {"cpu": 16}
"""Most rows of a batch: with 6 layers of width 384 on a CPU, 64 rows are slower a reply than 16."""
_MOST_ROWS_ELSEWHERE = 64


class ProvenForward:
    """The fastest forward passes that are correct for a model in evaluation mode.

    They are valid for the model's current weights. Every property is verified on first use.
    """

    def __init__(self, model: PreTrainedModel, encoder: DialogueEncoder) -> None:
        self._probe = Probe(model, encoder)
        self._config = model.config.get_text_config()
        self._most_rows = _MOST_ROWS.get(model.device.type, _MOST_ROWS_ELSEWHERE)
        self.passes: Forward = CachedForward(model, has_cache=False)
        for forward in filter(None, (_fast_forward(model, encoder), CachedForward(model))):
            if self._probe.proves(self._probe.continues_alone, forward):
                self.passes = forward
                break

    @cached_property
    def max_rows(self) -> int:
        """Return the largest number of rows in a batch; 1 if the model cannot read padded rows."""
        is_proved = self._probe.proves(self._probe.continues_padded, self.passes)
        return self._most_rows if is_proved else 1

    @cached_property
    def can_branch(self) -> bool:
        """Return whether one pass over a dialogue can serve all of its turns."""
        return self._probe.proves(self._probe.branches, self.passes)

    @cached_property
    def can_extend(self) -> bool:
        """Return whether `Rows.extend` and `Rows.cut` are correct and save work.

        The row of one reply can then become the beginning of the next prompt.
        """
        has_cache = getattr(self.passes, "has_cache", True)
        return has_cache and self._proves_of_any_length(self._probe.extends)

    @cached_property
    def can_join(self) -> bool:
        """Return whether `Rows.join` and `Rows.take` are correct: rows may come and go."""
        return self._proves_of_any_length(self._probe.joins)

    @cached_property
    def can_read_together(self) -> bool:
        """Return whether the passes are fast ones that can read several rows in one pass."""
        fast = self.passes if isinstance(self.passes, FastForward) else None
        return fast is not None and self._proves_of_any_length(
            lambda _: self._probe.reads_together(fast)
        )

    def _proves_of_any_length(self, holds: Callable[[Forward], bool]) -> bool:
        # Rotations that depend on the longest text so far would differ from those of slots that
        # were filled before.
        return has_fixed_rotations(self._config) and self._probe.proves(holds, self.passes)


def weights_version(model: PreTrainedModel) -> object:
    """Return a value that changes whenever weights are updated in place, moved or replaced."""
    return [
        (weight.data_ptr(), 0 if weight.is_inference() else weight._version)
        for weight in model.parameters()
    ]


def _fast_forward(model: PreTrainedModel, encoder: DialogueEncoder) -> Forward | None:
    is_plain = model.device.type == "cpu" and model.dtype == torch.float32
    if not is_plain or not fits_memory(model):
        return None
    try:
        network = network_for(model, encoder.max_length)
    except CANNOT_COMPUTE:  # weights of other names or shapes than the family's
        return None
    return None if network is None else FastForward(network)
