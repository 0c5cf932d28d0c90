"""Shards of a checkpoint: each process writes, flushes and hashes one file of each kind of tensors.

A shard is written tensor by tensor in the format of safetensors, whose own functions need all
tensors of a file at once.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from convo_cli.errors import ConvoError, DiskError
from convo_cli.model.tensor_files import index_name, shard_name
from convo_cli.storage.atomic import Publication, disk_errors, publishing
from convo_cli.storage.files import only_regular
from convo_cli.storage.folder import open_folder
from convo_cli.storage.sealed import Seal
from convo_cli.training.sharding.whole_tensors import (
    gathered,
    in_file_order,
    num_bytes,
    owners_of,
)
from convo_cli.world import World

_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Names of types in safetensors."""


def publish_shards(
    path: Path,
    kinds: Mapping[str, Mapping[str, Tensor]],
    fill: Callable[[Path], object],
    world: World,
    *,
    below: Path | None = None,
) -> None:
    """Publish a directory with the shards of all processes and the files that ``fill`` writes.

    Rank 0 creates it, calls ``fill``, and publishes it as `publish_directory` does. If a process
    fails, all raise an error and the directory is removed.
    """
    with ExitStack() as stack:  # in rank 0, it removes the directory after an error
        publications: list[Publication] = []

        def begin() -> None:
            publications.append(stack.enter_context(publishing(path, below=below)))

        def finish() -> None:
            (publication,) = publications
            with disk_errors(path):
                folder = publication.folder.pinned
                for kind, tensors in kinds.items():
                    write_index(folder, kind, tensors, world.size)
                fill(folder)
                publication.seals.update(seals)
            stack.close()  # seals and renames

        world.first_alone(begin)
        aside = world.gather(publications[0].folder.path.name if publications else "")[0]
        seals = _write_shards(path.with_name(aside), path, kinds, world, below=below)
        world.first_alone(finish)


def _write_shards(
    aside: Path,
    path: Path,
    kinds: Mapping[str, Mapping[str, Tensor]],
    world: World,
    *,
    below: Path | None,
) -> dict[str, Seal]:
    """Write this process's shard of each kind; return the seals of the shards of all processes.

    If a process fails, all raise its error. ``path`` is the checkpoint that messages name.
    """
    seals: dict[str, Seal] = {}
    failure: ConvoError | None = None
    for kind, tensors in kinds.items():
        own = gathered(tensors, world)
        name = shard_name(kind, world.rank + 1, world.size)
        try:
            if failure is None:
                with (
                    disk_errors(path),
                    open_folder(aside, below=below) as folder,
                    folder.open(name, "xb") as file,
                ):
                    seals[name] = write_tensors(file, _owned(tensors, world), own)
        except ConvoError as error:
            failure = error
        for _ in own:  # after an error the other processes still need the rows of this one
            pass
    own_result: dict[str, Any] = {"seals": seals}
    if failure is not None:
        own_result = {"message": failure.message, "hint": failure.hint}
    results = world.gather(own_result)
    if failure is not None:
        raise failure
    for rank, result in enumerate(results):
        if "message" in result:
            raise DiskError(f"{world.name(rank)}: {result['message']}", hint=result["hint"])
    return {
        name: (size, digest) for one in results for name, (size, digest) in one["seals"].items()
    }


def write_index(folder: Path, kind: str, tensors: Mapping[str, Tensor], num_shards: int) -> None:
    """Write the index of the shards in the form of transformers."""
    index = {
        "metadata": {"total_size": sum(map(num_bytes, tensors.values()))},
        "weight_map": {
            name: shard_name(kind, owner + 1, num_shards)
            for name, owner in sorted(owners_of(tensors, num_shards).items())
        },
    }
    with open(folder / index_name(kind), "wb", opener=only_regular) as file:
        file.write((json.dumps(index, indent=2) + "\n").encode())


def _owned(tensors: Mapping[str, Tensor], world: World) -> dict[str, Tensor]:
    """Return the tensors that this process writes, in the order of the file."""
    owners = owners_of(tensors, world.size)
    return {name: tensors[name] for name in in_file_order(tensors) if owners[name] == world.rank}


def write_tensors(file: BinaryIO, forms: Mapping[str, Tensor], tensors: Iterable[Tensor]) -> Seal:
    """Write a file of safetensors and wait until it is on the disk; return its size and SHA-256.

    ``forms`` has the name, shape and type of each tensor, in the same order.
    """
    digest, size = hashlib.sha256(), 0

    def write(content: bytes | memoryview) -> None:
        nonlocal size
        file.write(content)
        digest.update(content)
        size += len(content)

    write(_header(forms))
    for tensor in tensors:
        write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        del tensor  # before the next one is gathered
    file.flush()
    os.fsync(file.fileno())
    return size, digest.hexdigest()


def _header(forms: Mapping[str, Tensor]) -> bytes:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, form in forms.items():
        begin, end = end, end + num_bytes(form)
        header[name] = {
            "dtype": _TYPES[form.dtype],
            "shape": list(form.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
