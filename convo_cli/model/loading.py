"""Loading and saving of a causal language model: only safetensors, every weight, no code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from convo_cli.config.schema import PretrainedModel
from convo_cli.errors import ModelError, first_line
from convo_cli.model.adapters.adapter_files import (
    find_base,
    holds_adapter,
    read_adapter,
    write_adapter,
)
from convo_cli.model.adapters.lora import adapter_of, adapter_tensors, load_adapter
from convo_cli.model.decoding.sampling_defaults import read_generation_config
from convo_cli.model.memory.free import require_room
from convo_cli.model.sizes import UNREADABLE_HINT, require_sizes, shape
from convo_cli.runs.model_folder import require_model_folder
from convo_cli.storage.foreign_files import (
    ADAPTER_TENSORS,
    CODE,
    remove_foreign_entries,
    require_harmless,
    without_keys,
)
from convo_cli.text.tokenizers.hub import find_folder
from convo_cli.wording import counted

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_model(
    source: str, revision: str | None = None, *, base: PretrainedModel | None = None
) -> PreTrainedModel:
    """Load a causal LM in fp32 from safetensors; every weight comes from the files and is finite.

    A checkpoint of convo that holds an adapter is loaded on top of its base, which may have been
    moved to the place ``base``. ModelError names the file or tensor and the problem;
    OutOfMemoryError if the weights would not fit.
    """
    folder = find_folder(source, revision)
    if holds_adapter(folder):
        return _load_adapted(folder, base)
    require_model_folder(folder)
    num_parameters = require_sizes(folder, source).num_parameters()
    require_room(
        4 * num_parameters,
        f"{source}, with {num_parameters:,} parameters,",
        "use a smaller model, or end other programs",
    )
    from transformers import AutoModelForCausalLM

    try:
        with _no_bars():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                # The generation config of the folder may contain anything.
                generation_config=read_generation_config(folder),
                output_loading_info=True,
                # The check below names the tensors; the error of transformers would not.
                ignore_mismatched_sizes=True,
            )
    except Exception as error:  # transformers raises many types for what is one mistake to the user
        raise ModelError(
            f"{source}: transformers cannot load this model ({first_line(error)})",
            hint=UNREADABLE_HINT,
        ) from error
    model: PreTrainedModel = loaded[0]
    _require_every_weight(model, loaded[1], source)
    _drop_code(model.config)
    for config in {id(one): one for one in (model.config, model.config.get_text_config())}.values():
        # convo reads outputs by name and needs no attention maps, which the kernels do not return.
        config.output_attentions, config.return_dict = False, True
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()  # a mapped tensor would change with its file
    return model


def _load_adapted(folder: Path, given: PretrainedModel | None) -> PreTrainedModel:
    require_harmless(folder)
    files = find_base(folder, read_adapter(folder).base, given)
    model = load_model(str(files.path))
    files.require_unchanged()
    load_adapter(model, folder, files.path)
    if stated := read_generation_config(folder):
        model.generation_config = stated
    return model


def save_model(model: PreTrainedModel, folder: Path) -> None:
    """Write config.json, generation_config.json and model.safetensors; of an adapter, its files."""
    if adapter := adapter_of(model):
        write_adapter(adapter, folder)
        save_file(adapter_tensors(model), folder / ADAPTER_TENSORS, metadata={"format": "pt"})
        model.generation_config.save_pretrained(folder)
        remove_foreign_entries(folder)
        return
    with _no_bars():
        model.save_pretrained(folder)
    remove_foreign_entries(folder)


def save_config(model: PreTrainedModel, folder: Path) -> None:
    """Write config.json and generation_config.json as `save_model` does, without the weights."""
    model.config.dtype = str(model.dtype).removeprefix("torch.")
    # FSDP2 derives a class of its own.
    model.config.architectures = [type(model).__name__.removeprefix("FSDP")]
    model.config.save_pretrained(folder)
    if model.can_generate():
        model.generation_config.save_pretrained(folder)
    remove_foreign_entries(folder)


def _drop_code(config: Any) -> None:
    """Remove entries that name code, so that no program runs code from the saved model."""
    for key, value in list(vars(config).items()):
        if hasattr(value, "to_dict"):
            _drop_code(value)
        elif key in CODE:
            delattr(config, key)
        elif isinstance(value, (dict, list)) and (kept := without_keys(value, CODE)) != value:
            setattr(config, key, kept)


def _require_every_weight(model: PreTrainedModel, loading: Mapping[str, Any], source: str) -> None:
    """Refuse weights that are missing, of another shape, or not finite.

    transformers would fill missing weights with random numbers.
    """
    if misfits := sorted(loading["mismatched_keys"]):
        name, stored, wanted = misfits[0]
        raise ModelError(
            f"{source}: the tensor {name} has the shape {shape(stored)} in the weights, but "
            f"{shape(wanted)} by config.json" + _and_more(len(misfits) - 1),
            hint="config.json and the weights belong to different models; copy both again",
        )
    if missing := sorted(loading["missing_keys"]):
        raise ModelError(
            f"{source}: the weights lack the tensor {missing[0]}" + _and_more(len(missing) - 1),
            hint="give the folder of a whole causal language model, not of an encoder or adapter",
        )
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise ModelError(
                f"{source}: the tensor {name} contains values that are not finite (NaN or "
                "infinity)",
                hint="use an earlier checkpoint or another copy of the model",
            )


def _and_more(count: int) -> str:
    return f" (and {counted(count, 'more tensor')})" if count else ""


@contextmanager
def _no_bars() -> Iterator[None]:
    """Keep transformers from drawing progress bars while it reads and writes local files."""
    from transformers.utils import logging

    was_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            logging.enable_progress_bar()
