"""Checkpoints with the shards that several processes write, made from tensors in one place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from convo_cli.model.tensor_files import file_name, in_file_order, shard_name, write_tensors
from convo_cli.training.sharding.shards import write_index
from convo_cli.training.sharding.whole_tensors import owners_of
from tests.sealed import seal_again


def write_as_shards(
    folder: Path, kind: str, tensors: Mapping[str, Tensor], num_shards: int
) -> None:
    """Write tensors of a kind as shards with an index."""
    owners = owners_of(tensors, num_shards)
    for rank in range(num_shards):
        own = {name: tensors[name] for name in in_file_order(tensors) if owners[name] == rank}
        with (folder / shard_name(kind, rank + 1, num_shards)).open("wb") as file:
            write_tensors(file, own, own.values())
    write_index(folder, kind, tensors, num_shards)


def split_checkpoint(folder: Path, num_shards: int = 2) -> Path:
    """Replace the two files of tensors in a checkpoint by shards, and seal it again."""
    for kind in ("model", "optimizer"):
        file = folder / file_name(kind)
        tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
        file.unlink()
        write_as_shards(folder, kind, tensors, num_shards)
    seal_again(folder)
    return folder
