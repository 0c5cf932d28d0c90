"""A job for benchmarks: convo's own steps on given batches, without evaluation or saving."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from convo_cli.model.batches.batching import Batching
from convo_cli.model.batches.loss import Batch
from convo_cli.model.cost import FlopCounter
from convo_cli.model.device import autocast_for
from convo_cli.runs.provenance.execution import ResolvedPrecision
from convo_cli.training.loop import Job, StepPlan

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Steps(Job):
    """Takes steps on the batches that ``batches_of`` returns; ``flops`` is their total cost,
    ``slots`` their tokens with padding.
    """

    max_steps, max_grad_norm = 10**6, 1.0

    def __init__(
        self,
        model: PreTrainedModel,
        batching: Batching,
        batches_of: Callable[[int], Sequence[Batch]],
        learning_rate_of: Callable[[int], float],
        *,
        seed: int = 0,
        precision: ResolvedPrecision = "fp32",
    ) -> None:
        self.seed = seed
        self.flops, self.slots = 0.0, 0
        self._batching = batching
        self._batches_of = batches_of
        self._learning_rate_of = learning_rate_of
        self._count_flops = FlopCounter(model)
        self._autocast = autocast_for(model.device, precision)

    def plan(self, step: int) -> StepPlan:
        batches = self._batches_of(step)
        self.flops += sum(map(self._count_flops, batches))
        self.slots += sum(batch.input_ids.numel() for batch in batches)
        return StepPlan.of(batches)

    def nll_sum(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        with self._autocast():
            return self._batching.nll_sum(model, batch.to(model.device))

    def learning_rate(self, step: int) -> float:
        return self._learning_rate_of(step)
