"""Tensors of a model as GGUF stores them: names, shapes, types and values.

All names and shapes are settled and checked before the file is created. The values are computed
one tensor at a time, so an export needs the memory of the model and of its largest tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convo_cli.errors import ModelError
from convo_cli.export.format import Dtype
from convo_cli.export.llama_cpp.gguf_families import OTHER_FORMAT, Family

if TYPE_CHECKING:
    import numpy as np
    import torch
    from gguf import GGMLQuantizationType, GGUFWriter
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

TYPE_NAMES: Mapping[Dtype, str] = {"fp32": "F32", "fp16": "F16", "bf16": "BF16", "q8_0": "Q8_0"}
"""llama.cpp's names of the types of weights."""
_MAX_NAME_BYTES = 63
"""ggml keeps 64 bytes for a name with its final NUL."""
_MAX_SIZE = 2**31 - 1
"""Of a dimension: llama.cpp counts tokens and rows with 32 bits."""
_MAX_BYTES = 2**62
_TRANSPOSED = (".c_attn.weight", ".c_proj.weight", ".c_fc.weight")
_SUFFIXES = (".weight", ".bias")


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor of the file: its place, and how to compute its values."""

    name: str
    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    values: Callable[[], NDArray[np.float32]]

    @property
    def num_bytes(self) -> int:
        """Return the size of the values in the file."""
        from gguf import GGML_QUANT_SIZES

        block, num_bytes = GGML_QUANT_SIZES[self.kind]
        return math.prod(self.shape) // block * num_bytes


def stored_tensors(model: PreTrainedModel, family: Family, dtype: Dtype) -> list[StoredTensor]:
    """Return every tensor of a model once; ModelError if llama.cpp has no place for one."""
    from gguf import MODEL_ARCH, get_tensor_name_map

    config: Any = model.config
    names = get_tensor_name_map(MODEL_ARCH[family.architecture], config.num_hidden_layers)
    found: dict[str, StoredTensor] = {}
    for source, tensor in _tensors(model):
        name = names.get_name(source, try_suffixes=_SUFFIXES)
        if name is None or name in found:
            raise ModelError(
                f"the model has a tensor for which GGUF has no place: {source}",
                hint=OTHER_FORMAT,
            )
        shape = tuple(tensor.shape)
        if family.layout == "conv1d" and source.endswith(_TRANSPOSED):
            shape = shape[::-1]
        found[name] = StoredTensor(
            name, shape, tensor_type(name, shape, dtype), _values(source, tensor, family, config)
        )
    for tensor_found in found.values():
        require_sound(tensor_found.name, tensor_found.shape)
    return list(found.values())


def tensor_type(name: str, shape: tuple[int, ...], dtype: Dtype) -> GGMLQuantizationType:
    """Return the type in which a tensor is stored, by the rules of llama.cpp's own converter.

    Vectors and position embeddings keep 32 bits, and a matrix whose rows do not consist of whole
    blocks has 16 bits.
    """
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    if len(shape) < 2 or name == "position_embd.weight":
        return GGMLQuantizationType.F32
    kind = GGMLQuantizationType[TYPE_NAMES[dtype]]
    block, _ = GGML_QUANT_SIZES[kind]
    return kind if shape[-1] % block == 0 else GGMLQuantizationType.F16


def require_sound(name: str, shape: tuple[int, ...]) -> None:
    """Raise ModelError for a name or shape that the C++ readers of the file do not check well."""
    if len(name.encode()) > _MAX_NAME_BYTES:
        raise ModelError(f"a tensor's name has over {_MAX_NAME_BYTES} bytes: {name[:80]}")
    if not 1 <= len(shape) <= 4 or any(not 1 <= size <= _MAX_SIZE for size in shape):
        raise ModelError(f"the tensor {name} has the shape {shape}, which GGUF cannot hold")
    if 4 * math.prod(shape) > _MAX_BYTES:
        raise ModelError(f"the tensor {name} has too many values: its shape is {shape}")


def write_values(writer: GGUFWriter, tensors: list[StoredTensor]) -> None:
    """Write the values in the order in which the tensors were announced."""
    import numpy as np
    from gguf.quants import quantize

    class Written(np.ndarray[Any, Any]):
        """An array whose write errors have a number; numpy's own say only how much was written."""

        def tofile(self, file: Any, *options: Any, **named: Any) -> None:
            file.write(self.data.cast("B"))

    for tensor in tensors:
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(quantize(tensor.values(), tensor.kind))
        if stored.dtype == np.float16 and not np.isfinite(stored).all():
            raise ModelError(
                f"the tensor {tensor.name} has values that 16-bit floats cannot hold",
                hint="export with --dtype bf16 or fp32",
            )
        writer.write_tensor_data(stored.view(Written))


def _tensors(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the weights; a tied output matrix is not repeated, as llama.cpp reads it so."""
    weights = dict(model.named_parameters())
    known = {tensor.data_ptr() for tensor in weights.values()}
    yield from weights.items()
    for name, tensor in model.state_dict().items():
        if name not in weights and tensor.data_ptr() not in known:
            yield name, tensor


def _values(
    name: str, tensor: torch.Tensor, family: Family, config: Any
) -> Callable[[], NDArray[np.float32]]:
    import numpy as np

    def values() -> NDArray[np.float32]:
        found: NDArray[np.float32] = tensor.detach().float().cpu().numpy()
        if family.layout == "conv1d" and name.endswith(_TRANSPOSED):
            return np.ascontiguousarray(found.T)
        if family.layout == "rotary pairs":
            if ".q_proj." in name:
                return _paired(found, config.num_attention_heads)
            if ".k_proj." in name:
                return _paired(found, config.num_key_value_heads)
        if family.layout == "norms from one" and name.endswith("norm.weight"):
            return found + 1
        return found

    return values


def _paired(rows: NDArray[np.float32], num_heads: int) -> NDArray[np.float32]:
    """Reorder the rows of each head: transformers rotates row i with row i + half, llama.cpp 2i
    with 2i + 1.
    """
    halves = rows.reshape(num_heads, 2, rows.shape[0] // num_heads // 2, *rows.shape[1:])
    pairs: NDArray[np.float32] = halves.swapaxes(1, 2).reshape(rows.shape)
    return pairs
