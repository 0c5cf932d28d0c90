"""Tensors of a run's state by name, each gathered in turn by the process that writes it.

With ``training.sharding: full`` each process holds some rows of each tensor. Gathering needs extra
memory for one tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import ceil
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

from convo_cli.model.tensor_files import in_file_order, num_bytes
from convo_cli.world import World

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def gathered(tensors: Mapping[str, Tensor], world: World) -> Iterator[Tensor]:
    """Yield the whole tensors that this process owns, on the CPU, in the order of `in_file_order`.

    All processes must iterate to the end, and drop each tensor before they ask for the next.
    """
    owners = owners_of(tensors, world.size)
    for name in in_file_order(tensors):
        if owners[name] == world.rank:
            yield _whole(tensors[name], world)
        else:
            _send_rows(tensors[name], owners[name], world)


def owners_of(tensors: Mapping[str, Tensor], num_ranks: int) -> dict[str, int]:
    """Return the rank that writes each tensor: from the largest down, the rank with fewest bytes.

    The result depends on names and sizes alone, so all processes agree.
    """
    loads, owners = [0] * num_ranks, {}
    for name in sorted(tensors, key=lambda name: (-num_bytes(tensors[name]), name)):
        owners[name] = owner = min(range(num_ranks), key=loads.__getitem__)
        loads[owner] += num_bytes(tensors[name])
    return owners


def local_part(tensor: Tensor) -> Tensor:
    """Return the rows of a tensor that this process holds; all rows unless it is distributed."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor.detach()


def as_number(tensor: Tensor) -> float:
    """Return the value of a scalar, even if it is distributed."""
    return float(tensor.full_tensor() if isinstance(tensor, DTensor) else tensor)


def rows_of(num_rows: int, rank: int, num_ranks: int) -> slice:
    """Return the rows of a distributed tensor that a rank holds, as `torch.chunk` cuts them."""
    chunk = ceil(num_rows / num_ranks)
    return slice(min(num_rows, rank * chunk), min(num_rows, (rank + 1) * chunk))


def _whole(tensor: Tensor, world: World) -> Tensor:
    if not isinstance(tensor, DTensor):
        return tensor.detach().cpu()
    local = _local_rows(tensor)
    whole = torch.empty(tensor.shape, dtype=local.dtype, device=local.device)
    for rank in range(world.size):
        rows = rows_of(len(tensor), rank, world.size)
        if rank == world.rank:
            whole[rows] = local
        elif rows.start < rows.stop:
            dist.recv(whole[rows], src=rank)
    return whole.cpu()


def _send_rows(tensor: Tensor, owner: int, world: World) -> None:
    if isinstance(tensor, DTensor) and len(rows := _local_rows(tensor)):
        dist.send(rows, dst=owner)


def _local_rows(tensor: DTensor) -> Tensor:
    assert tuple(tensor.placements) == (Shard(0),), "FSDP2 distributes rows"
    return tensor.to_local().detach().contiguous()


def model_tensors(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return the tensors that `save_pretrained` saves; a tied tensor is listed under one name.

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
