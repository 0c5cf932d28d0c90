"""Shards of a checkpoint: each process writes, flushes and hashes one file of each kind of tensors.

A shard is written tensor by tensor in the format of safetensors, whose own functions need all
tensors of a file at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import Tensor

from convo_cli.errors import ConvoError, DiskError
from convo_cli.model.tensor_files import in_file_order, num_bytes, shard_name, write_tensors
from convo_cli.model.tensor_files import write_index as write_index_of
from convo_cli.storage.atomic import Publication, disk_errors, publishing
from convo_cli.storage.folder import open_folder
from convo_cli.storage.sealed import Seal
from convo_cli.training.sharding.whole_tensors import gathered, owners_of
from convo_cli.world import World


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
    owners = owners_of(tensors, num_shards)
    files = {name: shard_name(kind, owner + 1, num_shards) for name, owner in owners.items()}
    write_index_of(folder, kind, files, sum(map(num_bytes, tensors.values())))


def _owned(tensors: Mapping[str, Tensor], world: World) -> dict[str, Tensor]:
    """Return the tensors that this process writes, in the order of the file."""
    owners = owners_of(tensors, world.size)
    return {name: tensors[name] for name in in_file_order(tensors) if owners[name] == world.rank}
