"""Memory of a micro-batch, counted while its passes run on fake tensors.

A fake tensor of torch has a shape and a device but no numbers, so a model and a batch that would
not fit in memory can be counted too. What a kernel allocates for itself is not counted.
"""

from __future__ import annotations

import copy
import weakref
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from convo_cli.model.batches.attention import Segments
from convo_cli.model.batches.loss import Batch, LossOf
from convo_cli.model.create import keep_activations, num_embeddings, save_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class LivePeak:
    """Bytes of tensors at the peak of a forward and backward pass, without the weights."""

    activations: int = 0
    """Kept for the backward pass, and temporary."""
    logits: int = 0
    gradients: int = 0

    @property
    def total(self) -> int:
        """Return the sum of all parts."""
        return self.activations + self.logits + self.gradients


def live_peak(
    model: PreTrainedModel,
    compute: LossOf,
    batch: Batch,
    *,
    has_gradients: bool,
    is_trained: bool = True,
    saves_memory: bool | None = None,
) -> LivePeak:
    """Return the peak of a forward and backward pass, or of a forward pass in evaluation.

    With ``has_gradients``, those of an earlier micro-batch of the step exist already.
    ``saves_memory`` says whether activations are recomputed; None: as the model does it. Raises
    what torch raises if the model cannot run on fake tensors.
    """
    fakes = FakeTensorMode()
    copied = _faked_model(fakes, model)
    copied.train(is_trained)
    if saves_memory:
        save_memory(copied)
    elif saves_memory is not None:
        keep_activations(copied)
    moved = _faked_batch(fakes, batch, model.device)
    counter = _LiveTensors(copied, num_embeddings(model))
    if has_gradients:
        counter.begin_with_gradients()
    # A compiled model uses less memory, but tracing it takes too long.
    eager = torch.compiler.set_stance("force_eager")
    with torch.random.fork_rng([]), torch.set_grad_enabled(is_trained), eager, fakes, counter:
        result = compute(copied, moved)
        if is_trained:
            result.backward()
    return counter.peak


def _faked_model(fakes: FakeTensorMode, model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of a model with fake weights; it uses no memory."""
    known: dict[int, Any] = {
        id(one): nn.Parameter(fakes.from_tensor(one.data), requires_grad=one.requires_grad)
        for one in model.parameters()
    }
    known |= {id(one): fakes.from_tensor(one) for one in model.buffers()}
    return copy.deepcopy(model, known)


def _faked_batch(fakes: FakeTensorMode, batch: Batch, device: torch.device) -> Batch:
    moved = batch.to(device)
    faked: dict[str, Any] = {
        field.name: fakes.from_tensor(value)
        for field in fields(moved)
        if isinstance(value := getattr(moved, field.name), Tensor)
    }
    if isinstance(moved.segments, Segments):
        boundaries = fakes.from_tensor(moved.segments.boundaries)
        faked["segments"] = replace(moved.segments, boundaries=boundaries)
    return replace(moved, **faked)


class _LiveTensors(TorchDispatchMode):
    """Counts the bytes of the tensors that exist at the same time."""

    def __init__(self, model: PreTrainedModel, num_ids: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = LivePeak()
        self._num_ids = num_ids
        self._now = self._logits = self._gradients = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()
        self._trained = [one for one in model.parameters() if one.requires_grad]
        for tensor in (*model.parameters(), *model.buffers()):
            self._known.add(tensor.untyped_storage())
        for parameter in self._trained:
            parameter.register_post_accumulate_grad_hook(self._count_gradient)
        self._with_gradient: set[int] = set()

    def begin_with_gradients(self) -> None:
        """Give every trained parameter a gradient."""
        for parameter in self._trained:
            parameter.grad = torch.empty_like(parameter)
            self._add(parameter.grad)
            self._count_gradient(parameter)

    def _count_gradient(self, parameter: Tensor) -> None:
        if id(parameter) not in self._with_gradient and parameter.grad is not None:
            self._with_gradient.add(id(parameter))
            self._gradients += parameter.grad.untyped_storage().nbytes()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor)
        return result

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        self._known.add(storage)
        num_bytes = storage.nbytes()
        is_logits = tensor.ndim > 1 and tensor.shape[-1] == self._num_ids
        self._change(num_bytes, is_logits)
        weakref.finalize(storage, self._change, -num_bytes, is_logits)
        if self._now > self.peak.total:
            rest = self._now - self._logits - self._gradients
            self.peak = LivePeak(rest, self._logits, self._gradients)

    def _change(self, num_bytes: int, is_logits: bool) -> None:
        self._now += num_bytes
        self._logits += num_bytes if is_logits else 0
