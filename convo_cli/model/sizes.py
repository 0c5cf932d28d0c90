"""Comparison of the sizes in config.json with the tensors of the weights, before memory is
allocated.

transformers allocates what config.json states and compares afterwards. Here the model is built on
the meta device, on which tensors have a shape but no memory, and its parts are counted meanwhile:
every layer has tensors of its own, so the weights bound the number of parts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import torch

from convo_cli.errors import ModelError, first_line
from convo_cli.storage.foreign_files import json_entries
from convo_cli.text.bounded.process import TRY_CONFIG
from convo_cli.text.tokenizers.pretrained import require_within_limits

MAX_HEADER_BYTES = 2**25
"""Longest header of a safetensors file; 100,000 tensors need half of it."""
_SLACK = 2**24
"""Numbers that may be missing from the weights here, because loading reports missing weights by
name.
"""
_BUFFER_BYTES = 2**28
"""Bytes of tables (attention masks, rotations) that any model may compute when it is built. Larger
weights allow more. GPT-Neo's masks take 128 MiB, and computing a table takes three times its
size."""
_QUANTIZED = {"quantization_config", "compression_config"}
"""Keys that make transformers load other packages, and kernels from a hub."""
_MAX_LAYERS = 1000
"""No known model has 200."""
_NUM_LAYERS = re.compile("(num_|n_)?((hidden|encoder|decoder)_)?layers?")
_HINT = "config.json and model.safetensors are not of one model"


class TooManyError(Exception):
    """The model has more parts than its weights have tensors for."""


def require_sizes(folder: Path, source: str) -> None:
    """Raise ModelError, with both values, if config.json describes a larger model than the weights
    hold.
    """
    stored = read_shapes(folder)
    for key, value in json_entries(json.loads((folder / "config.json").read_bytes())):
        if key in _QUANTIZED and value:
            raise ModelError(
                f"{source}: its weights are quantized ({key} in config.json), and convo computes "
                "with fp32",
                hint="convert it first: "
                "AutoModelForCausalLM.from_pretrained(…).dequantize().save_pretrained(…)",
            )
        if (
            isinstance(value, int)
            and _NUM_LAYERS.fullmatch(key)
            and value > min(len(stored), _MAX_LAYERS)
        ):
            raise ModelError(
                f"{source}: {key} is {value:,} in config.json, but the weights are {len(stored):,} "
                "tensors "
                f"(and {_MAX_LAYERS:,} layers are allowed)",
                hint=_HINT,
            )
    require_within_limits(TRY_CONFIG, folder, source)
    num_stored = sum(map(prod, stored.values()))
    try:
        model = _on_meta(folder, len(stored))
    except TooManyError as error:
        raise ModelError(
            f"{source}: config.json describes more than {error} parts, but the weights are "
            f"{len(stored):,} tensors",
            hint=_HINT,
        ) from None
    except (
        Exception
    ) as error:  # transformers raises half a dozen types for what is one mistake to the user
        raise ModelError(
            f"{source}: not a readable causal language model ({first_line(error)})",
            hint="give a model that AutoModelForCausalLM of the installed transformers opens",
        ) from error
    wanted = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    if (num_wanted := sum(map(prod, wanted.values()))) > 2 * num_stored + _SLACK:
        name = max(wanted, key=lambda one: prod(wanted[one]))
        there = next(
            (shape for other, shape in stored.items() if f".{name}".endswith(f".{other}")), None
        )
        raise ModelError(
            f"{source}: config.json describes a model of {num_wanted:,} numbers, but the weights "
            f"hold {num_stored:,} "
            f"({name} is {wanted[name]} by config.json"
            + (f" and {there} in the weights)" if there else ")"),
            hint=_HINT,
        )
    allowed = max(_BUFFER_BYTES, 4 * num_stored)
    if (num_bytes := sum(buffer.nbytes for buffer in model.buffers())) > allowed:
        raise ModelError(
            f"{source}: the model of config.json needs {num_bytes:,} bytes of tables beside its "
            "weights "
            f"({allowed:,} are allowed)",
            hint="its number of positions may be wrong",
        )


def read_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Read the shape of each tensor from the headers of the safetensors files; ModelError names a
    damaged file.
    """
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for file in _weights(folder):
        try:
            with file.open("rb") as opened:
                length = int.from_bytes(opened.read(8), "little")
            if length > MAX_HEADER_BYTES:
                raise ModelError(
                    f"{file}: damaged (its header is {length:,} bytes, and {MAX_HEADER_BYTES:,} "
                    "are allowed)",
                    hint="copy the model again",
                )
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118
                    shapes[name] = tuple(tensors.get_slice(name).get_shape())
        except (OSError, SafetensorError) as error:
            raise ModelError(
                f"{file}: damaged ({first_line(error)})", hint="copy the model again"
            ) from None
    return shapes


def _weights(folder: Path) -> list[Path]:
    """Return the files that transformers reads: model.safetensors, or else those that the index
    names.
    """
    if (single := folder / "model.safetensors").is_file():
        return [single]
    return sorted(folder.glob("*.safetensors"))


def _on_meta(folder: Path, num_tensors: int) -> Any:
    """Build the model without memory; TooManyError once it has more parts than ``num_tensors`` can
    fill.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with _counting(6 * num_tensors + 1024), torch.device("meta"):
        return AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, trust_remote_code=False
        )


@contextmanager
def _counting(most: int) -> Iterator[None]:
    """Raise TooManyError in the block at the first parameter, buffer or module beyond ``most``."""
    from torch.nn.modules import module

    count = 0

    def add(*_: object) -> None:
        nonlocal count
        count += 1
        if count > most:
            raise TooManyError(f"{most:,}")

    hooks = [
        module.register_module_parameter_registration_hook(add),
        module.register_module_module_registration_hook(add),
        module.register_module_buffer_registration_hook(add),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
