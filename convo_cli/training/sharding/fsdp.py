"""Sharding of a model by FSDP2: each process holds some rows of every parameter and its moments.

torch gathers the parameters of a block before its forward and backward pass, and reduces gradients
to the rows of each process. The parameters outside the blocks are gathered by methods of the model
that FSDP2 knows, so convo computes the loss inside one (`run_inside`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from convo_cli.training.sharding.whole_tensors import local_part, rows_of
from convo_cli.world import World

if TYPE_CHECKING:
    from transformers import PreTrainedModel

T = TypeVar("T")

_INSIDE = "convo_run_inside"


def shard_model(model: PreTrainedModel, world: World) -> None:
    """Distribute the parameters of a model over the processes, block by block.

    The gradient of a parameter becomes the sum over the processes.
    """
    mesh = init_device_mesh(model.device.type, (world.size,))
    for block in blocks_of(model):
        fully_shard(block, mesh=mesh)
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
    """Return what ``call`` returns; the parameters outside the blocks are whole during it."""
    run: Callable[[Callable[[], T]], T] = getattr(model, _INSIDE, lambda call: call())
    return run(call)


def reduce_after(model: PreTrainedModel, *, is_last: bool) -> None:
    """Reduce gradients only in the backward pass of the last micro-batch of a step."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(is_last)


@contextmanager
def whole_model(model: PreTrainedModel) -> Iterator[None]:
    """Keep all parameters whole in every process inside the block, for evaluation.

    Inside it the processes need not take the same forward passes.
    """
    modules = _sharded_modules(model)
    if modules:
        with torch.no_grad():
            run_inside(model, lambda: None)  # the first call tells torch which module is the root
    for module in modules:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in modules:
            # That of the root is needed again at once, by the backward pass.
            module.set_reshard_after_forward(module is not model, recurse=False)
            module.reshard()


def load_weights(model: PreTrainedModel, other: PreTrainedModel) -> None:
    """Replace the weights of a model, which may be distributed, by those of a whole one."""
    whole = other.state_dict()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            local_part(tensor).copy_(like(whole[name], tensor, is_local=True))


def like(whole: torch.Tensor, tensor: torch.Tensor, *, is_local: bool = False) -> torch.Tensor:
    """Return a copy of a whole tensor that is distributed as another one.

    With ``is_local``, only the rows of this process.
    """
    if not isinstance(tensor, DTensor):
        return whole.clone()
    mesh = tensor.device_mesh
    rows = rows_of(len(whole), mesh.get_local_rank(), mesh.size())
    local = whole[rows].clone().to(tensor.device)
    if is_local:
        return local
    return DTensor.from_local(
        local, mesh, tensor.placements, run_check=False, shape=tensor.shape, stride=tensor.stride()
    )


def _sharded_modules(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, FSDPModule)]
