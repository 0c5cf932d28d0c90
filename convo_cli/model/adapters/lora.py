"""LoRA by peft: small trained updates beside the frozen matrices of a model.

The rows of new tokens in the embeddings and the head are trained too. Otherwise the model could
neither read a new role token nor write a new end token. peft trains single rows without untying a
tied head.

The model keeps its class; peft replaces only the adapted modules. Its tensors are saved under the
names that ``PeftModel.from_pretrained`` reads.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from convo_cli.errors import CheckpointError, ModelError, first_line
from convo_cli.model.adapters.adapter_files import (
    Adapter,
    read_adapter,
    read_adapter_tensors,
)
from convo_cli.model.adapters.peft_package import require_peft

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ADAPTER, _BASE = "convo_adapter", "convo_base_folder"
_PREFIX = "base_model.model."
"""Prefix of the names in a file of peft."""
_OWN = re.compile(r"(\.lora_[AB]|\.token_adapter\.trainable_tokens_delta)\.default(?=\.weight$|$)")


def adapter_of(model: Any) -> Adapter | None:
    """Return the adapter of a model; None if it has none."""
    adapter: Adapter | None = getattr(model, _ADAPTER, None)
    return adapter


def base_folder_of(model: Any) -> Path:
    """Return the folder from which the base of a loaded adapter was read."""
    folder: Path = getattr(model, _BASE)
    return folder


def load_adapter(model: PreTrainedModel, folder: Path, base: Path) -> None:
    """Add the adapter of a checkpoint to its base; CheckpointError if it does not fit.

    ``base`` is the folder that the model was read from; `base_folder_of` returns it.
    """
    adapter = read_adapter(folder)
    embeddings: Any = model.get_input_embeddings()
    num_rows, wanted = len(embeddings.weight), adapter.base.num_embeddings
    if not adapter.config.token_ids.issuperset(range(num_rows, wanted)):
        raise CheckpointError(f"{folder}: the adapter lacks the rows of new tokens")
    if wanted > num_rows:  # the adapter holds the values of all new rows
        model.resize_token_embeddings(wanted, mean_resizing=False)
        tables: list[Any] = [model.get_input_embeddings(), model.get_output_embeddings()]
        for module in tables:
            module.weight.data[num_rows:] = 0.0  # not random: processes compare their models
    inject(model, adapter)
    own = adapter_tensors(model)
    for name, tensor in read_adapter_tensors(folder, own).items():
        own[name].copy_(tensor)
    setattr(model, _BASE, base)


def adapter_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of the adapter by their names in a file; they share its memory."""
    return {
        _PREFIX + _OWN.sub(r"\1", name): parameter.detach()
        for name, parameter in model.named_parameters()
        if _OWN.search(name)
    }


def saved_tensors(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return the tensors that a checkpoint of one process saves: of the adapter, or all."""
    return model.state_dict() if adapter_of(model) is None else adapter_tensors(model)


def is_token_row(name: str) -> bool:
    """Return whether the parameter of this name holds the trained rows of an embedding."""
    return ".trainable_tokens_delta." in name


def merge_adapter(model: PreTrainedModel) -> None:
    """Add the updates to the weights, and restore the modules that peft replaced."""
    for name, module in list(model.named_modules()):
        if hasattr(module, "unload_and_optionally_merge_module"):
            plain = module.unload_and_optionally_merge_module(True, False, None)
        elif hasattr(module, "get_delta_weight"):
            module.merge()
            plain = module.get_base_layer()
        else:
            continue
        above, _, own = name.rpartition(".")
        setattr(model.get_submodule(above), own, plain)
    delattr(model, _ADAPTER)
    del model.peft_config  # or transformers would save an adapter


@torch.no_grad()
def weight_of(module: Any) -> Tensor:
    """Return the weight with which a module computes, without gradient: its update is added."""
    weight: Tensor = module.weight  # of an embedding, peft has inserted the trained rows
    if hasattr(module, "get_delta_weight") and not module.merged:
        for name in module.active_adapters:
            weight = weight + module.get_delta_weight(name)
    return weight


def plain_module(module: Any) -> nn.Module:
    """Return the module of the model itself: inside that of peft, if peft replaced it."""
    found: nn.Module = module.original_module if hasattr(module, "token_adapter") else module
    return found


def inject(model: PreTrainedModel, adapter: Adapter) -> None:
    """Replace the target modules by those of peft, and freeze all other parameters."""
    require_peft()
    from peft import LoraConfig, inject_adapter_in_model

    settings = adapter.config.model_dump(exclude={"inference_mode", "base_model_name_or_path"})
    settings["target_modules"] = list(adapter.config.target_modules)
    if indices := adapter.config.trainable_token_indices:
        settings["trainable_token_indices"] = {name: list(ids) for name, ids in indices.items()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about matrices of both (in, out) and (out, in)
            inject_adapter_in_model(LoraConfig(**settings), model)
    except Exception as error:  # peft raises many types for a model that it does not know
        raise ModelError(
            f"peft cannot adapt a {type(model).__name__} ({first_line(error)})",
            hint="set model.lora.target_modules to other modules, or model.lora: null",
        ) from error
    if adapter.config.trainable_token_indices:
        for module in (model.get_input_embeddings(), model.get_output_embeddings()):
            if not hasattr(module, "token_adapter"):
                raise untrainable(model, "peft does not reach both embeddings")
    setattr(model, _ADAPTER, adapter)


def untrainable(model: PreTrainedModel, reason: str) -> ModelError:
    """Return the error that the rows of new tokens cannot be trained in this model."""
    return ModelError(
        "the template adds tokens to the vocabulary, and LoRA cannot train their rows in a "
        f"{type(model).__name__}: {reason}. Without them the model cannot learn to end a reply",
        hint="set model.lora: null, or use a model whose tokenizer has a chat template",
    )
