"""Weights of an export as safetensors: in another type, in one file or in files of limited size.

Shapes are those of the checkpoint. Tensors are read and written one at a time.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from convo_cli.errors import ModelError
from convo_cli.export.format import Dtype
from convo_cli.model.tensor_files import (
    TYPES,
    file_name,
    in_file_order,
    num_bytes,
    reading,
    shard_name,
    write_index,
    write_tensors,
)
from convo_cli.storage.files import only_regular

TORCH_TYPES: Mapping[Dtype, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
_NAMED_TYPES = {name: dtype for dtype, name in TYPES.items()}
_HEADER_BYTES = 192  # most that the header says of a tensor besides its name


def write_weights(
    files: Sequence[Path], folder: Path, dtype: Dtype, max_shard_bytes: int | None
) -> None:
    """Write the tensors of some files as model.safetensors, or as shards with an index.

    A file is larger than the limit only if it holds a single tensor. Tensors that share their
    memory are one tensor in the files of a checkpoint, so they stay tied. ModelError names a
    tensor with a value that ``dtype`` cannot hold.
    """
    wanted = TORCH_TYPES[dtype]
    stored = _forms(files)
    forms = {name: _as(form, wanted) for name, (form, _) in stored.items()}
    shards = _shards(forms, max_shard_bytes)
    is_same = all(form.dtype == forms[name].dtype for name, (form, _) in stored.items())
    if is_same and len(files) == len(shards) == 1:
        shutil.copyfile(files[0], folder / file_name("model"))  # byte for byte the checkpoint's
        return
    names = [
        shard_name("model", number + 1, len(shards)) if len(shards) > 1 else file_name("model")
        for number in range(len(shards))
    ]
    for name, shard in zip(names, shards, strict=True):
        ordered = {tensor: forms[tensor] for tensor in in_file_order(shard)}
        places = [(tensor, stored[tensor][1]) for tensor in ordered]
        with open(folder / name, "xb", opener=only_regular) as file:
            write_tensors(file, ordered, _read(places, dtype))
    if len(shards) > 1:
        of_tensor = {tensor: name for name, shard in zip(names, shards, strict=True)
                     for tensor in shard}  # fmt: skip
        write_index(folder, "model", of_tensor, sum(map(num_bytes, forms.values())))


def _forms(files: Iterable[Path]) -> dict[str, tuple[Tensor, Path]]:
    """Return each tensor without its values, and its file."""
    found: dict[str, tuple[Tensor, Path]] = {}
    for file in files:
        with reading(file), safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118  (it is no mapping)
                part = opened.get_slice(name)
                if (dtype := _NAMED_TYPES.get(part.get_dtype())) is None:
                    raise ModelError(
                        f"{file}: the tensor {name} has the type {part.get_dtype()}, which convo "
                        "does not export"
                    )
                found[name] = torch.empty(part.get_shape(), dtype=dtype, device="meta"), file
    return found


def _as(form: Tensor, wanted: torch.dtype) -> Tensor:
    return form.to(wanted) if form.is_floating_point() else form


def _shards(forms: Mapping[str, Tensor], most: int | None) -> list[dict[str, Tensor]]:
    """Return the tensors of each file, in the order of the checkpoint."""
    shards: list[dict[str, Tensor]] = [{}]
    room = most
    for name, form in forms.items():
        if most is not None and room is not None:
            size = num_bytes(form) + len(name.encode()) + _HEADER_BYTES
            if shards[-1] and size > room:
                shards.append({})
                room = most
            room -= size
        shards[-1][name] = form
    return shards


def _read(places: Iterable[tuple[str, Path]], dtype: Dtype) -> Iterator[Tensor]:
    """Yield tensors in the type of the export."""
    for name, path in places:
        with reading(path), safe_open(path, framework="pt") as opened:
            tensor = opened.get_tensor(name)
            stored = _as(tensor, TORCH_TYPES[dtype])
            if stored.is_floating_point() and not stored.isfinite().all():
                raise ModelError(
                    f"the tensor {name} has values up to {tensor.abs().max().item():.4g}, but "
                    f"{dtype} holds at most {torch.finfo(stored.dtype).max:.4g}",
                    hint="export with --dtype bf16, or without --dtype",
                )
            yield stored
