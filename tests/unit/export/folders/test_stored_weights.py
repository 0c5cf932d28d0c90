"""Weights of an export: every tensor once, in the type and the file size that were asked for."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from convo_cli.errors import ModelError
from convo_cli.export.folders.stored_weights import write_weights
from convo_cli.model.tensor_files import tensor_files

SIZES = {"a.weight": (40, 10), "b.weight": (10, 10), "c.bias": (10,), "d.weight": (300, 10)}
TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@pytest.fixture(scope="module")
def tensors():
    torch.manual_seed(0)
    made = {name: torch.randn(shape) for name, shape in SIZES.items()}
    return made | {"mask": torch.arange(5), "flag": torch.tensor([True, False])}


@pytest.fixture
def checkpoint(tensors, tmp_path):
    file = tmp_path / "model.safetensors"
    save_file(tensors, file, metadata={"format": "pt"})
    return [file]


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def read(folder: Path) -> dict[str, torch.Tensor]:
    files = tensor_files(folder, "model")  # checks the index and the names of the shards
    parts = [load_file(file) for file in files]
    assert sum(map(len, parts)) == len(set().union(*parts))
    return {name: tensor for part in parts for name, tensor in part.items()}


def test_fp32_in_one_file_is_the_checkpoints_file(checkpoint, out):
    write_weights(checkpoint, out, "fp32", None)
    assert [file.name for file in out.iterdir()] == ["model.safetensors"]
    assert (out / "model.safetensors").read_bytes() == checkpoint[0].read_bytes()


@pytest.mark.parametrize("most", [None, 1, 2500, 10**9])
@pytest.mark.parametrize("dtype", TYPES)
def test_every_tensor_is_written_once_in_the_type_and_all_others_stay(
    checkpoint, out, tensors, dtype, most
):
    write_weights(checkpoint, out, dtype, most)
    found = read(out)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        wanted = tensor.to(TYPES[dtype]) if tensor.is_floating_point() else tensor
        assert found[name].dtype == wanted.dtype
        assert torch.equal(found[name], wanted), name


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("most", [1, 700, 2500, 5000])
def test_a_file_of_several_tensors_is_within_the_limit(checkpoint, out, dtype, most):
    write_weights(checkpoint, out, dtype, most)
    files = sorted(out.glob("*.safetensors"))
    assert len(files) > 1
    for number, file in enumerate(files, 1):
        assert file.name == f"model-{number:05}-of-{len(files):05}.safetensors"
        assert file.stat().st_size <= most or len(load_file(file)) == 1
    index = json.loads((out / "model.safetensors.index.json").read_bytes())
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in read(out).values())


def test_shards_become_one_file(tensors, tmp_path, out):
    names = sorted(tensors)
    parts = [dict.fromkeys(names[:3]), dict.fromkeys(names[3:])]
    files = [tmp_path / f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for file, part in zip(files, parts, strict=True):
        save_file({name: tensors[name] for name in part}, file)
    write_weights(files, out, "fp32", None)
    assert [file.name for file in out.iterdir()] == ["model.safetensors"]
    assert all(torch.equal(read(out)[name], tensor) for name, tensor in tensors.items())


def test_weights_in_another_type_become_fp32(tensors, tmp_path, out):
    file = tmp_path / "model.safetensors"
    save_file({"a": tensors["a.weight"].bfloat16()}, file)
    write_weights([file], out, "fp32", None)
    assert read(out)["a"].dtype == torch.float32


@pytest.mark.parametrize(
    ("dtype", "value", "fits"),
    [
        ("fp16", 65504.0, True), ("fp16", -70000.0, False), ("fp16", 1e-12, True),
        ("bf16", 1e38, True), ("bf16", 3.4e38, False),
    ],
)  # fmt: skip
def test_a_value_that_the_type_cannot_hold_is_an_error_that_names_the_tensor(
    tmp_path, out, dtype, value, fits
):
    file = tmp_path / "model.safetensors"
    save_file({"small": torch.ones(3), "h.0.large": torch.tensor([1.0, value])}, file)
    if fits:
        write_weights([file], out, dtype, None)
        return
    with pytest.raises(ModelError, match=r"the tensor h\.0\.large has values up to") as caught:
        write_weights([file], out, dtype, None)
    assert caught.value.exit_code == 2
    assert f"{dtype} holds at most" in caught.value.message


@pytest.mark.skipif(os.name != "posix", reason="modes are of POSIX")
def test_files_have_the_mode_of_the_umask(checkpoint, out):
    before = os.umask(0o027)
    try:
        write_weights(checkpoint, out, "bf16", 2500)
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in out.iterdir()} == {0o640}
