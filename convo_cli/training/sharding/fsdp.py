"""Sharding of a model by FSDP2: each process holds some rows of every parameter and its moments.

torch gathers the parameters of a block before its forward and backward pass, and reduces gradients
to the rows of each process. The parameters outside the blocks are gathered by methods of the model
that FSDP2 knows, so convo computes the loss inside one (`run_inside`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from convo_cli.config.schema import Sharding
from convo_cli.errors import ModelError
from convo_cli.events import Emit, Notice
from convo_cli.model.adapters.lora import adapter_of
from convo_cli.training.sharding.whole_tensors import model_tensors, rows_of
from convo_cli.world import World

if TYPE_CHECKING:
    from transformers import PreTrainedModel

T = TypeVar("T")

_INSIDE, _COPY = "convo_run_inside", "convo_plain_copy"
_SHARE_OF_MEMORY = 0.7
"""Share of a GPU's memory for weights, gradients and moments; the rest is for activations."""


def choose_sharding(
    wanted: Sharding, model: PreTrainedModel, world: World, emit: Emit
) -> Literal["none", "full"]:
    """Return how the processes hold the model; ModelError if its shards would not be readable."""
    if world.size == 1:
        if wanted == "full":
            emit(Notice("training.sharding: full has no effect, because there is one device"))
        return "none"
    has_adapter = adapter_of(model) is not None
    if wanted == "none" or (wanted == "auto" and (has_adapter or _fits(model))):
        return "none"
    if has_adapter:
        raise ModelError(
            "training.sharding: full cannot be used with model.lora, whose frozen weights each "
            "device has",
            hint="--set training.sharding=none",
        )
    _require_own_names(model)
    emit(Notice(f"sharding: each of {world.size} devices holds a part of the model (FSDP2)"))
    return "full"


def _fits(model: PreTrainedModel) -> bool:
    """Return whether a GPU has the memory for weights, gradients and both moments of AdamW."""
    if model.device.type != "cuda":
        return True
    needed = sum(
        (16 if parameter.requires_grad else 4) * parameter.numel()
        for parameter in model.parameters()
    )
    memory = torch.cuda.get_device_properties(model.device).total_memory
    return needed < _SHARE_OF_MEMORY * memory


def _require_own_names(model: PreTrainedModel) -> None:
    """Raise ModelError if transformers converts the tensors when it saves them; shards do not."""
    from transformers.core_model_loading import revert_weight_conversion

    tensors = {name: tensor.detach().to("meta") for name, tensor in model_tensors(model).items()}
    if revert_weight_conversion(model, dict(tensors)).keys() != tensors.keys():
        raise ModelError(
            f"{type(model).__name__} cannot be sharded: transformers saves its tensors in another "
            "form than it trains them",
            hint="--set training.sharding=none",
        )


def shard_model(model: PreTrainedModel, world: World) -> None:
    """Distribute the parameters of a model over the processes, block by block.

    The gradient of a parameter becomes the sum over the processes.
    """
    copied = _copy_without_memory(model)
    mesh = init_device_mesh(model.device.type, (world.size,))
    for block in blocks_of(model):
        fully_shard(block, mesh=mesh)
    # In a tuple, because a module as an attribute would become a part of the model.
    setattr(model, _COPY, (copied,))
    setattr(model, _INSIDE, lambda call: call())
    fully_shard(model, mesh=mesh)
    register_fsdp_forward_method(model, _INSIDE)
    for module in _sharded_modules(model):
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)  # gloo has no other reduction


def blocks_of(model: PreTrainedModel) -> list[nn.Module]:
    """Return the modules that transformers never splits over devices: the layers of the model."""
    names = set(model._no_split_modules or ())
    return [module for module in model.modules() if type(module).__name__ in names]


def run_inside(model: PreTrainedModel, call: Callable[[], T]) -> T:
    """Return the result of ``call``, during which the parameters outside the blocks are whole."""
    run: Callable[[Callable[[], T]], T] = getattr(model, _INSIDE, lambda call: call())
    return run(call)


def reduce_gradients(model: PreTrainedModel, *, is_due: bool) -> None:
    """Set whether the next backward pass reduces the gradients; only the last of a step must."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(is_due)


@contextmanager
def whole_model(model: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """Yield a model with all its parameters in this process, for an evaluation.

    It is the model itself, or a copy of a distributed one. FSDP2 knows nothing of the copy, so the
    processes may take different numbers of forward passes.
    """
    copied = plain_copy(model)
    if copied is model:
        yield model
        return
    with torch.no_grad():
        whole = {name: tensor.full_tensor() for name, tensor in model.named_parameters()}  # type: ignore[attr-defined]
    fill(copied, whole)
    try:
        yield copied
    finally:
        fill(copied, {name: tensor.to("meta") for name, tensor in whole.items()})


def plain_copy(model: PreTrainedModel) -> PreTrainedModel:
    """Return the copy of a distributed model, whose parameters have no memory; else the model."""
    copied: PreTrainedModel = getattr(model, _COPY, (model,))[0]
    return copied


def fill(model: PreTrainedModel, tensors: Mapping[str, torch.Tensor]) -> None:
    """Replace the parameters of a model by tensors, which have the same names."""
    new = {
        id(parameter): nn.Parameter(tensors[name], requires_grad=False)
        for name, parameter in model.named_parameters()
    }
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            setattr(module, name, new[id(parameter)])


def _copy_without_memory(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of a model whose parameters have shapes but no memory."""
    known = {id(one): nn.Parameter(one.detach().to("meta")) for one in model.parameters()}
    return copy.deepcopy(model, known)


def distributed_like(whole: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy of ``whole`` that is distributed like ``tensor``."""
    if not isinstance(tensor, DTensor):
        return whole.clone()
    mesh = tensor.device_mesh
    rows = rows_of(len(whole), mesh.get_local_rank(), mesh.size())
    local = whole[rows].clone().to(tensor.device)
    return DTensor.from_local(
        local, mesh, tensor.placements, run_check=False, shape=tensor.shape, stride=tensor.stride()
    )


def _sharded_modules(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, FSDPModule)]
