"""Tensors of a run's state by name, gathered one at a time to the process that writes them.

With ``training.sharding: full`` each process holds some rows of each tensor. The extra memory of
gathering is that of one tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

from convo_cli.world import World

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Gathered(NamedTuple):
    """A tensor by name, whole in the process that owns it."""

    name: str
    tensor: Tensor | None
    """On the CPU; None in the other processes."""
    owner: int
    """The rank that writes it."""


def gathered(tensors: Mapping[str, Tensor], world: World) -> Iterator[Gathered]:
    """Yield every tensor in the order of `in_file_order`; all processes must iterate to the end."""
    owners = owners_of(tensors, world.size)
    for name in in_file_order(tensors):
        yield Gathered(name, _whole(tensors[name], owners[name], world), owners[name])


def owners_of(tensors: Mapping[str, Tensor], num_ranks: int) -> dict[str, int]:
    """Return the rank that writes each tensor: the largest go first, to the rank with the least.

    It depends on names and sizes alone, so all processes agree.
    """
    loads, owners = [0] * num_ranks, {}
    for name in sorted(tensors, key=lambda name: (-num_bytes(tensors[name]), name)):
        owners[name] = owner = min(range(num_ranks), key=loads.__getitem__)
        loads[owner] += num_bytes(tensors[name])
    return owners


def in_file_order(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names in the order of safetensors: wide types first, so that all are aligned."""
    return sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))


def num_bytes(tensor: Tensor) -> int:
    """Return the size of a whole tensor, also of one that is distributed."""
    return tensor.numel() * tensor.element_size()


def local_part(tensor: Tensor) -> Tensor:
    """Return the rows of a tensor that this process holds; all of one that is not distributed."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor.detach()


def as_number(tensor: Tensor) -> float:
    """Return the value of a scalar, also of one that is reduced over the processes."""
    return float(tensor.full_tensor() if isinstance(tensor, DTensor) else tensor)


def rows_of(num_rows: int, rank: int, num_ranks: int) -> slice:
    """Return the rows of a distributed tensor that a rank holds, as `torch.chunk` cuts them."""
    chunk = ceil(num_rows / num_ranks)
    return slice(min(num_rows, rank * chunk), min(num_rows, (rank + 1) * chunk))


def _whole(tensor: Tensor, owner: int, world: World) -> Tensor | None:
    if not isinstance(tensor, DTensor):
        return tensor.detach().cpu() if world.rank == owner else None
    assert tuple(tensor.placements) == (Shard(0),), "FSDP2 distributes rows"
    local = tensor.to_local().detach().contiguous()
    shape = tensor.shape if world.rank == owner else (0,)
    whole = torch.empty(shape, dtype=local.dtype, device=local.device)
    for rank in range(world.size):
        rows = rows_of(len(tensor), rank, world.size)
        if rows.start == rows.stop:
            continue
        if world.rank == owner == rank:
            whole[rows] = local
        elif world.rank == owner:
            dist.recv(whole[rows], src=rank)
        elif world.rank == rank:
            dist.send(local, dst=owner)
    return whole.cpu() if world.rank == owner else None


def model_tensors(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return the tensors that `save_pretrained` saves: of two names of a tied one, the first.

    They share memory with the model.
    """
    state: dict[str, Tensor] = model.state_dict(keep_vars=True)
    tied: Mapping[str, str] = model.all_tied_weights_keys
    ignored = {*(model._keys_to_ignore_on_save or ()), *tied}
    kept: dict[int, str] = {}
    for name in sorted(state, key=lambda name: (name in tied, name)):
        kept.setdefault(id(state[name]), name)
    return {name: state[name] for name in kept.values() if name not in ignored or name in tied}


def is_distributed(model: Any) -> bool:
    """Return whether each process holds only some rows of the model's parameters."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())
