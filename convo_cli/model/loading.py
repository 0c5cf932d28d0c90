"""Loading and saving of a causal language model: only safetensors, every weight, no code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from convo_cli.errors import ModelError, first_line
from convo_cli.model.generation import read_generation_config
from convo_cli.model.sizes import require_sizes
from convo_cli.runs.model_folder import require_model_folder
from convo_cli.storage.foreign_files import CODE, remove_foreign_entries, without_keys
from convo_cli.text.tokenizers.hub import find_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_model(source: str, revision: str | None = None) -> PreTrainedModel:
    """Load a causal LM in fp32 from safetensors; every weight comes from the files and is finite.

    ModelError names the file or tensor and the problem.
    """
    folder = find_folder(source, revision)
    require_model_folder(folder)
    require_sizes(folder, source)
    from transformers import AutoModelForCausalLM

    try:
        with _no_bars():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                generation_config=read_generation_config(
                    folder
                ),  # the one in the folder may hold anything
                output_loading_info=True,
                # so that the check below can name them; the error would not
                ignore_mismatched_sizes=True,
            )
    except (
        Exception
    ) as error:  # transformers raises half a dozen types for what is one mistake to the user
        raise ModelError(
            f"{source}: not a readable causal language model ({first_line(error)})",
            hint="give a model that AutoModelForCausalLM of the installed transformers opens",
        ) from error
    model: PreTrainedModel = loaded[0]
    _require_every_weight(model, loaded[1], source)
    _drop_code(model.config)
    for config in {id(one): one for one in (model.config, model.config.get_text_config())}.values():
        config.output_attentions, config.return_dict = (
            False,
            True,
        )  # what convo reads; kernels return no maps
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()  # a mapped tensor would change with its file
    return model


def save_model(model: PreTrainedModel, folder: Path) -> None:
    """Write config.json, generation_config.json and model.safetensors."""
    with _no_bars():
        model.save_pretrained(folder)
    remove_foreign_entries(folder)


def _drop_code(config: Any) -> None:
    """Remove entries that name code, so that no program runs code from a model saved with this
    config.
    """
    for key, value in list(vars(config).items()):
        if hasattr(value, "to_dict"):
            _drop_code(value)
        elif key in CODE:
            delattr(config, key)
        elif isinstance(value, (dict, list)) and (kept := without_keys(value, CODE)) != value:
            setattr(config, key, kept)


def _require_every_weight(model: PreTrainedModel, loading: Mapping[str, Any], source: str) -> None:
    """Refuse missing weights, which transformers would fill with random numbers, and weights that
    are not finite.
    """
    if misfits := sorted(loading["mismatched_keys"]):
        name, stored, wanted = misfits[0]
        raise ModelError(
            f"{source}: {name} is {tuple(stored)} in the weights, but {tuple(wanted)} by "
            "config.json" + (f" ({len(misfits)} tensors differ)" if len(misfits) > 1 else ""),
            hint="config.json and model.safetensors are not of one model",
        )
    if missing := sorted(loading["missing_keys"]):
        raise ModelError(
            f"{source}: {missing[0]} is missing in the weights"
            + (f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""),
            hint="a causal language model is needed, whole and not only an adapter or an encoder",
        )
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise ModelError(
                f"{source}: {name} holds values that are not finite (NaN or infinity)",
                hint="take an earlier checkpoint, or another copy of the model",
            )


@contextmanager
def _no_bars() -> Iterator[None]:
    """Keep transformers from drawing progress bars over ours while it reads and writes local
    files.
    """
    from transformers.utils import logging

    was_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            logging.enable_progress_bar()
