"""Shards of a checkpoint: the same tensors as in one file, each written once, by its owner."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from convo_cli.errors import CheckpointError, DiskError
from convo_cli.model.tensor_files import in_file_order, shard_name, tensor_files, write_tensors
from convo_cli.storage.sealed import file_sha256, verify_directory
from convo_cli.training.sharding.shards import publish_shards
from convo_cli.training.sharding.whole_tensors import gathered, owners_of
from convo_cli.world import World
from tests.full_disk import file_size_limit
from tests.ranks import run_ranks
from tests.sharded import write_as_shards

TENSORS = {
    "b.weight": torch.randn(7, 3),
    "a.weight": torch.randn(5, 4),
    "mask": torch.tensor([True, False, True]),
    "half": torch.randn(3, 2).bfloat16(),
    "step": torch.tensor(4.0),
    "counts": torch.arange(6).reshape(3, 2),
    "empty": torch.zeros(0, 4),
    "ünicode": torch.ones(1),
}


def same(one, other):
    return one.dtype == other.dtype and torch.equal(one, other)


def test_a_written_file_has_the_bytes_that_safetensors_writes(tmp_path):
    ordered = {name: TENSORS[name] for name in in_file_order(TENSORS)}
    with (tmp_path / "file").open("wb") as file:
        size, digest = write_tensors(file, ordered, ordered.values())
    content = (tmp_path / "file").read_bytes()
    assert content == save(TENSORS, metadata={"format": "pt"})
    assert (size, digest) == (len(content), file_sha256(tmp_path / "file"))


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 20])
def test_each_tensor_has_one_owner_and_no_rank_has_much_more_than_another(num_ranks):
    tensors = {f"{number}": torch.empty(1 + number % 5, 8) for number in range(23)}
    owners = owners_of(tensors, num_ranks)
    assert owners.keys() == tensors.keys()
    assert owners == owners_of(dict(reversed(tensors.items())), num_ranks)
    loads = [
        sum(tensors[name].nbytes for name, owner in owners.items() if owner == rank)
        for rank in range(num_ranks)
    ]
    assert max(loads) - min(loads) <= max(tensor.nbytes for tensor in tensors.values())


def test_one_process_owns_all_and_copies_nothing():
    for name, tensor in zip(in_file_order(TENSORS), gathered(TENSORS, World()), strict=True):
        assert tensor.data_ptr() == TENSORS[name].data_ptr()


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_publish_the_tensors_of_which_each_holds_some_rows(tmp_path, size):
    path = tmp_path / "checkpoints" / "step-1"

    def save_together(world):
        mesh = init_device_mesh("cpu", (world.size,))
        rows = {
            name: distribute_tensor(tensor, mesh, [Shard(0)])
            for name, tensor in TENSORS.items()
            if tensor.ndim > 1
        }
        kinds = {"model": {**TENSORS, **rows}, "optimizer": {"a|step": torch.tensor(1.0)}}
        publish_shards(path, kinds, lambda folder: (folder / "x.json").write_text("{}"), world)
        return sorted(file.name for file in path.iterdir())

    shards = [shard_name(kind, n + 1, size) for kind in ("model", "optimizer") for n in range(size)]
    others = ["MANIFEST.json", "model.safetensors.index.json", "optimizer.safetensors.index.json"]
    assert run_ranks(size, tmp_path, save_together) == [sorted([*shards, *others, "x.json"])] * size
    verify_directory(path)
    assert (path / shards[0]).stat().st_mode & 0o777 == (path / "x.json").stat().st_mode & 0o777
    found = [load_file(file) for file in tensor_files(path, "model")]
    assert sum(map(len, found)) == len(TENSORS)
    assert all(same(tensor, TENSORS[name]) for one in found for name, tensor in one.items())
    assert load_file(tensor_files(path, "optimizer")[0]) == {"a|step": torch.tensor(1.0)}
    assert list((tmp_path / "checkpoints").iterdir()) == [path]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_gathering_takes_the_memory_of_one_tensor(tmp_path):
    size = 16 << 20

    def save_and_measure(world):
        mesh = init_device_mesh("cpu", (world.size,))

        def save(step, count):
            tensors = {
                str(number): DTensor.from_local(torch.ones(count), mesh, [Shard(0)])
                for number in range(6)
            }
            before = memory("VmRSS")
            Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM to the memory of now
            publish_shards(tmp_path / step, {"model": tensors}, lambda folder: None, world)
            return memory("VmHWM") - before

        save("step-0", 8)  # imports and connections
        return save("step-1", size // 8)

    extras = run_ranks(2, tmp_path, save_and_measure)
    # glibc may keep the tensor before: 1.98 in about a third of the runs, else 1.0. All are 6.
    assert [extra for extra in extras if extra >= 2.2 * size] == []


def memory(name):
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"{name}:\s+(\d+) kB", status)[1])


@pytest.mark.parametrize("failing", [0, 1])
def test_a_full_disk_of_one_process_ends_all_and_leaves_nothing(tmp_path, failing):
    path = tmp_path / "checkpoints" / "step-1"

    def save_together(world):
        kinds = {"model": {str(number): torch.ones(4000) for number in range(4)}, "optimizer": {}}
        try:
            with file_size_limit(20_000 if world.rank == failing else 10**9):
                publish_shards(path, kinds, lambda folder: None, world)
        except DiskError as error:
            return error.message
        return "published"

    messages = run_ranks(2, tmp_path, save_together)
    assert messages[failing] == f"{path}: File too large"
    assert messages[1 - failing] == f"rank {failing}: {path}: File too large"
    assert list((tmp_path / "checkpoints").iterdir()) == []


# Reading


@pytest.fixture
def folder(tmp_path):
    write_as_shards(tmp_path, "model", TENSORS, 2)
    return tmp_path


def first(folder):
    return folder / "model-00001-of-00002.safetensors"


def change_index(folder, change):
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_bytes())
    change(content["weight_map"])
    index.write_text(json.dumps(content))


def test_shards_are_read_in_their_order(folder):
    assert [file.name for file in tensor_files(folder, "model")] == [
        "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
    ]  # fmt: skip


def test_one_file_comes_before_shards_as_in_transformers_and_may_be_missing(folder):
    assert tensor_files(folder, "optimizer") == [folder / "optimizer.safetensors"]
    (folder / "model.safetensors").write_bytes(b"")
    assert tensor_files(folder, "model") == [folder / "model.safetensors"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: first(f).unlink(), r"model-00001-of-00002\.safetensors: missing"),
        (lambda f: first(f).write_bytes(b"none"), r"model-00001-.*: cannot be read"),
        (
            lambda f: (first(f).unlink(), first(f).symlink_to("/dev/zero")),
            r"model-00001-.*: cannot be read .*not a regular file",
        ),
        (
            lambda f: first(f).with_name("model-00003-of-00003.safetensors").write_bytes(b""),
            r'"model-00003-of-00003\.safetensors" is not one of the shards of model\.safe',
        ),
        (
            lambda f: change_index(f, lambda names: names.update(step="../elsewhere.safetensors")),
            r'"\.\./elsewhere\.safetensors" is not one of the shards',
        ),
        (
            lambda f: change_index(f, lambda names: names.update(step="/etc/passwd")),
            r'"/etc/passwd" is not one of the shards',
        ),
        (
            lambda f: change_index(f, lambda names: names.update(step=["model"])),
            r"is not one of the shards",
        ),
        (
            lambda f: change_index(f, lambda names: names.update(other=first(f).name)),
            r'has no tensor "other", but model\.safetensors\.index\.json lists it there',
        ),
        (
            lambda f: change_index(f, lambda names: names.pop("step")),
            r'has "step", but model\.safetensors\.index\.json lists it elsewhere or not at all',
        ),
        (
            lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": [1]}'),
            r"index\.json: not a readable index",
        ),
        (
            lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": NaN}}'),
            r'"nan" is not one of the shards',
        ),
    ],
    ids=["missing", "damaged", "link", "more", "outside", "absolute", "list", "no tensor",
         "unlisted", "no map", "number"],
)  # fmt: skip
def test_damaged_missing_and_forged_shards_are_refused_by_name(folder, damage, message):
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        tensor_files(folder, "model")


def test_shards_of_two_saves_are_refused(folder):
    first(folder).rename(folder / "model-00001-of-00003.safetensors")
    with pytest.raises(CheckpointError, match=r"not one of the shards|missing"):
        tensor_files(folder, "model")


def test_an_index_that_is_too_large_is_not_read(folder, monkeypatch):
    monkeypatch.setattr("convo_cli.model.tensor_files.MAX_INDEX_BYTES", 100)
    with pytest.raises(CheckpointError, match="larger than 100 bytes"):
        tensor_files(folder, "model")
