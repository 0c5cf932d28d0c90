"""Sizes in config.json, compared with the tensors of the weights before memory is allocated.

transformers allocates what config.json states and compares afterwards. Here the model is built on
the meta device, on which tensors have a shape but no memory, and its parts are counted meanwhile:
every layer has tensors of its own, so the weights bound the number of parts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from convo_cli.errors import ModelError, first_line
from convo_cli.runs.model_folder import weight_files
from convo_cli.storage.foreign_files import INDEX, json_entries
from convo_cli.storage.other_models import DECODER_HINT, encoder_decoder
from convo_cli.text.bounded.process import TRY_CONFIG
from convo_cli.text.tokenizers.pretrained import require_within_limits
from convo_cli.wording import counted, quoted

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAX_HEADER_BYTES = 2**25
"""Longest header of a safetensors file; 100,000 tensors need half of it."""
_SLACK = 2**24
"""Numbers that the weights may lack here, because loading names missing tensors."""
_BUFFER_BYTES = 2**28
"""Bytes of tables (attention masks, rotations) that any model may compute when it is built.

Larger weights allow more. GPT-Neo's masks take 128 MiB, and computing a table takes three times its
size.
"""
_MAX_LAYERS = 1000
"""Most layers; no known model has 200."""
_NUM_LAYERS = re.compile("(num_|n_)?((hidden|encoder|decoder)_)?layers?")
_HINT = "config.json and the weights belong to different models; copy both again"
UNREADABLE_HINT = (
    "correct config.json, or use a model that AutoModelForCausalLM of the installed transformers "
    "opens"
)


class TooManyError(Exception):
    """The model has more parts than its weights have tensors for."""


def require_sizes(folder: Path, source: str) -> PreTrainedModel:
    """Return the model on the meta device, where its weights take no memory.

    Raises ModelError, with both values, if config.json describes more than the weights hold.
    """
    stored = read_shapes(folder)
    most_layers = min(len(stored), _MAX_LAYERS)
    for key, value in json_entries(json.loads((folder / "config.json").read_bytes())):
        if isinstance(value, int) and value > most_layers and _NUM_LAYERS.fullmatch(key):
            raise ModelError(
                f"{source}: {key} is {value:,} in config.json, but the weights have "
                f"{counted(len(stored), 'tensor')} (and convo allows {_MAX_LAYERS:,} layers)",
                hint=_HINT,
            )
    _require_known_type(folder, source)
    require_within_limits(TRY_CONFIG, folder, source)
    num_stored = sum(map(prod, stored.values()))
    try:
        model: PreTrainedModel = _on_meta(folder, len(stored), source)
    except TooManyError as error:
        raise ModelError(
            f"{source}: config.json describes more than {error} parts, but the weights have only "
            f"{counted(len(stored), 'tensor')}",
            hint=_HINT,
        ) from None
    except ModelError:
        raise
    except Exception as error:  # transformers raises many types for what is one mistake to the user
        raise ModelError(
            f"{source}: transformers cannot build this model ({first_line(error)})",
            hint=UNREADABLE_HINT,
        ) from error
    wanted = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    if (num_wanted := sum(map(prod, wanted.values()))) > 2 * num_stored + _SLACK:
        name = max(wanted, key=lambda one: prod(wanted[one]))
        largest = f"the tensor {name} has the shape {shape(wanted[name])}"
        if there := next((k for k in stored if f".{name}".endswith(f".{k}")), None):
            largest += f" by config.json and {shape(stored[there])} in the weights"
        raise ModelError(
            f"{source}: config.json describes a model of {num_wanted:,} parameters, but the "
            f"weights contain {num_stored:,}; {largest}",
            hint=_HINT,
        )
    allowed = max(_BUFFER_BYTES, 4 * num_stored)
    if (num_bytes := sum(buffer.nbytes for buffer in model.buffers())) > allowed:
        raise ModelError(
            f"{source}: the model in config.json needs {num_bytes:,} bytes of tables beside its "
            f"weights ({allowed:,} are allowed)",
            hint="correct the number of positions in config.json",
        )
    return model


def shape(sizes: Sequence[int]) -> str:
    """Return the sizes of a tensor in words, such as 50257 x 768."""
    return " x ".join(map(str, sizes)) or "()"


def read_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Read the shape of each tensor from the headers of the safetensors files.

    ModelError names a damaged file.
    """
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder / name for name in weight_files(folder) - {INDEX}):
        try:
            with file.open("rb") as opened:
                length = int.from_bytes(opened.read(8), "little")
            if length > MAX_HEADER_BYTES:
                raise ModelError(
                    f"{file}: not a safetensors file, or damaged (the header would be {length:,} "
                    "bytes)",
                    hint="copy the model again",
                )
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118
                    if name in shapes:
                        raise ModelError(
                            f"{file}: the tensor {quoted(name, 100)} is also in another of the "
                            "files of the weights",
                            hint="copy the model again",
                        )
                    shapes[name] = tuple(tensors.get_slice(name).get_shape())
        except FileNotFoundError:
            raise ModelError(
                f"{file}: not found, but {INDEX} names it", hint="copy the model again"
            ) from None
        except (OSError, SafetensorError) as error:
            raise ModelError(
                f"{file}: damaged ({first_line(error)})", hint="copy the model again"
            ) from None
    return shapes


def _require_known_type(folder: Path, source: str) -> None:
    """Raise ModelError for a model_type that the installed transformers does not know."""
    from transformers import CONFIG_MAPPING, __version__

    values = json.loads((folder / "config.json").read_bytes())
    if (kind := values["model_type"]) in CONFIG_MAPPING:
        return
    shown = quoted(str(kind))
    if "auto_map" in values:
        raise ModelError(
            f"{source}: a model of type {shown}, which needs the Python code of its author "
            "(auto_map in config.json), and convo never runs code from a model folder",
            hint=DECODER_HINT,
        )
    raise ModelError(
        f"{source}: transformers {__version__} does not know models of type {shown} (model_type in "
        "config.json)",
        hint="if the model is newer, install a newer transformers",
    )


def _on_meta(folder: Path, num_tensors: int, source: str) -> Any:
    """Build the model without memory.

    Raises TooManyError once it has more parts than ``num_tensors`` can fill, ModelError if it is
    not a causal language model.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if getattr(config, "is_encoder_decoder", False):  # by default, for a short config.json
        raise encoder_decoder(source, config.model_type)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelError(
            f"{source}: not a causal language model (model_type {config.model_type} in "
            "config.json)",
            hint=DECODER_HINT,
        )
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
