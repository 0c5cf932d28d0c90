"""The check that a checkpoint reads back as it was saved, before anything relies on it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from safetensors import safe_open

from convo_cli.errors import ModelError, first_line
from convo_cli.model.adapters.adapter_files import read_adapter
from convo_cli.model.adapters.lora import adapter_of, saved_tensors
from convo_cli.model.tensor_files import tensor_files
from convo_cli.text.readback import require_equal
from convo_cli.training.run_parts import Parts

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Form: TypeAlias = "tuple[tuple[int, ...], str]"
"""The shape and the type of a tensor; the type by its name in safetensors."""

_TYPES = {
    torch.float32: "F32",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.bool: "BOOL",
    torch.uint8: "U8",
}
_NUM_EXAMPLES = 20  # of the training data, read back as texts
_HINT = (
    "the installed transformers cannot save this model: use another version of it, or another model"
)
_PASSING = {"transformers_version", "architectures", "dtype", "torch_dtype"}
"""Keys of config.json that may differ, because they do not affect what the model computes."""


def require_readable(folder: Path, parts: Parts) -> None:
    """Raise ModelError unless a checkpoint has the run's tokenizer, template, config and tensors.

    Only the names, shapes and types of the tensors are read.
    """
    if adapter_of(parts.model) is None:
        _require_config(folder, parts.model)
    elif read_adapter(folder) != adapter_of(parts.model):
        raise ModelError("the saved adapter_config.json is not that of the adapter")
    _require_tensors(folder, parts.model)
    train = parts.data.train
    texts = [
        parts.encoder.decode(train[index].input_ids.tolist())
        for index in range(min(_NUM_EXAMPLES, len(train)))
    ]
    require_equal(parts.encoder, folder, texts, parts.reply_dialogues)


def _require_config(folder: Path, model: PreTrainedModel) -> None:
    """Check that config.json builds a model of the same class, settings and tensors."""
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        with torch.device("meta"):
            read: PreTrainedModel = AutoModelForCausalLM.from_config(
                config, trust_remote_code=False
            )
    except Exception as error:  # transformers raises half a dozen types
        raise ModelError(
            f"the saved config.json cannot be read ({first_line(error)})", hint=_HINT
        ) from error
    if type(read) is not type(model):
        raise ModelError(
            f"the model is a {type(model).__name__}, but its saved config.json builds a "
            f"{type(read).__name__}",
            hint=_HINT,
        )
    before, after = _settings(model.config.to_dict()), _settings(config.to_dict())
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            raise ModelError(
                f"{key} is {_shown(before.get(key))} in the model, but {_shown(after.get(key))} "
                "in the saved config.json",
                hint=_HINT,
            )
    old, new = (
        {name: tuple(tensor.shape) for name, tensor in one.state_dict().items()}
        for one in (model, read)
    )
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            raise ModelError(
                f"{name} is {old.get(name)} in the model, but {new.get(name)} according to the "
                "saved config.json",
                hint=_HINT,
            )


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)[:200]


def _settings(values: dict[str, Any]) -> dict[str, Any]:
    """Return a config as JSON, without keys that are private, unset or in `_PASSING`."""

    def cleaned(value: Any) -> Any:
        if isinstance(value, dict):
            kept = {
                key: cleaned(one)
                for key, one in value.items()
                if key[:1] != "_" and key not in _PASSING
            }
            return {key: one for key, one in kept.items() if one is not None}
        return [cleaned(one) for one in value] if isinstance(value, list) else value

    result: dict[str, Any] = cleaned(json.loads(json.dumps(values, default=str)))
    return result


def _require_tensors(folder: Path, model: PreTrainedModel) -> None:
    """Check that each tensor of the model is saved once.

    Tensors saved under other names are compared by size.
    """
    found = dict(_saved_tensors(folder))
    state = saved_tensors(model)
    for name, form in found.items():
        if name in state and form != (wanted := _form(state[name])):
            raise ModelError(f"{name} is saved as {form}, but is {wanted} in the model", hint=_HINT)
    owners = {tensor.data_ptr(): name for name, tensor in state.items() if name in found}
    missing = {
        tensor.data_ptr(): tensor for tensor in state.values() if tensor.data_ptr() not in owners
    }
    num_missing = sum(tensor.numel() for tensor in missing.values())
    num_other = sum(
        torch.Size(shape).numel() for name, (shape, _) in found.items() if name not in state
    )
    if num_missing != num_other:
        raise ModelError(
            f"{num_missing:,} of the model's numbers are missing from the saved tensors, which "
            f"hold {num_other:,} others",
            hint=_HINT,
        )


def _form(tensor: torch.Tensor) -> Form:
    return tuple(tensor.shape), _TYPES.get(tensor.dtype, str(tensor.dtype))


def _saved_tensors(folder: Path) -> Iterator[tuple[str, Form]]:
    for file in tensor_files(folder, "model"):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118  # not a mapping
                tensor = opened.get_slice(name)
                yield name, (tuple(tensor.get_shape()), tensor.get_dtype())
