"""Files in which a checkpoint has its tensors: one safetensors file, or shards with an index.

The kinds of tensors are ``model`` and ``optimizer``. Each has one file, such as model.safetensors,
or one shard for each process of the training, such as model-00001-of-00002.safetensors, with an
index in the form of transformers. A file is written tensor by tensor, because the functions of
safetensors need all its tensors at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from convo_cli.errors import CheckpointError, DiskError
from convo_cli.storage.files import only_regular, read_file, require_regular
from convo_cli.storage.foreign_files import ADAPTER_BASE, ADAPTER_TENSORS, MAX_INDEX_BYTES
from convo_cli.storage.sealed import Seal
from convo_cli.wording import quoted

_HINT = "copy the folder again from an intact copy, or use another checkpoint"
_SHARD = re.compile(r"\w+-\d{5}-of-(\d{5})\.safetensors")
TYPES = {
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


def file_name(kind: str) -> str:
    """Return the name of the one file with all tensors of a kind."""
    return f"{kind}.safetensors"


def index_name(kind: str) -> str:
    """Return the name of the index, which names the shard of each tensor."""
    return f"{kind}.safetensors.index.json"


def shard_name(kind: str, number: int, num_shards: int) -> str:
    """Return the name of a shard; they are numbered from 1."""
    return f"{kind}-{number:05}-of-{num_shards:05}.safetensors"


def tensor_files(folder: Path, kind: str) -> list[Path]:
    """Return the files that hold the tensors of a kind; the one file may be missing.

    Of an adapter, the model's are in adapter_model.safetensors.

    CheckpointError unless the index names exactly the shards of the folder and their tensors.
    """
    whole, index = folder / file_name(kind), folder / index_name(kind)
    if kind == "model" and (folder / ADAPTER_BASE).exists():
        return [folder / ADAPTER_TENSORS]
    if whole.exists() or not index.exists():
        return [whole]
    listed = _read_index(index)
    present = {file.name for file in folder.glob(f"{kind}-*.safetensors")}
    names = _complete(kind, {*listed, *present}, index)
    for name in names:
        if name not in present:
            raise CheckpointError(f"{folder / name}: missing", hint=_HINT)
        with reading(folder / name), safe_open(folder / name, framework="pt") as opened:
            found = set(opened.keys())
        for tensor in sorted(found.symmetric_difference(listed.get(name, set()))):
            where = "lists it elsewhere or not at all" if tensor in found else "lists it there"
            raise CheckpointError(
                f"{folder / name}: has {'' if tensor in found else 'no tensor '}"
                f"{quoted(tensor, 100)}, but {index.name} {where}",
                hint=_HINT,
            )
    return [folder / name for name in names]


def _complete(kind: str, names: Collection[str], index: Path) -> list[str]:
    """Return the names of all shards of the save that these names are from."""
    complete: list[str] = []
    for name in sorted(names):
        match = _SHARD.fullmatch(name)
        if match and not complete:
            num_shards = int(match.group(1))
            complete = [shard_name(kind, number + 1, num_shards) for number in range(num_shards)]
        if name not in complete:
            raise CheckpointError(
                f"{index.parent}: {quoted(name, 100)} is not one of the shards of {index.name}",
                hint=_HINT,
            )
    if not complete:
        raise CheckpointError(f"{index}: the folder has no shards", hint=_HINT)
    return complete


def _read_index(index: Path) -> dict[str, set[str]]:
    """Return the names of the tensors by the name of their file."""
    with reading(index):
        content = read_file(index, MAX_INDEX_BYTES)
    listed: dict[str, set[str]] = {}
    try:
        for tensor, file in json.loads(content)["weight_map"].items():
            listed.setdefault(str(file), set()).add(tensor)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{index}: not a readable index ({error})", hint=_HINT) from error
    return listed


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Raise CheckpointError for a file of tensors that is damaged, missing, or not a regular file.

    DiskError if the permission to read it is missing.
    """
    try:
        require_regular(file)
        yield
    except PermissionError as error:
        raise DiskError(f"{file}: {error.strerror}") from error
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file}: cannot be read ({error})") from error


def in_file_order(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names in the order of safetensors: wide types first, so that all are aligned."""
    return sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))


def num_bytes(tensor: Tensor) -> int:
    """Return the size of a whole tensor, even if it is distributed."""
    return tensor.numel() * tensor.element_size()


def write_index(folder: Path, kind: str, files: Mapping[str, str], total_bytes: int) -> None:
    """Write the index of shards in the form of transformers; ``files`` has the file of a tensor."""
    index = {
        "metadata": {"total_size": total_bytes},
        "weight_map": dict(sorted(files.items())),
    }
    with open(folder / index_name(kind), "wb", opener=only_regular) as file:
        file.write((json.dumps(index, indent=2) + "\n").encode())


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
            "dtype": TYPES[form.dtype],
            "shape": list(form.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
