"""Creation of the causal language model: loaded from a folder or hub id, or a new GPT-2 of a stated
size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from convo_cli.config.schema import ScratchConfig
from convo_cli.data.dialogue import Dialogue, Turn
from convo_cli.errors import ModelError, first_line
from convo_cli.model.generation import read_generation_config
from convo_cli.model.sizes import require_sizes
from convo_cli.runs.model_folder import require_model_folder
from convo_cli.storage.foreign_files import CODE, remove_foreign_entries, without_keys
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.tokenizers.hub import find_folder, local_folder
from convo_cli.text.tokenizers.vocabulary import num_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_PROBE = (Turn("user", "a"), Turn("assistant", "b"))


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


def build_scratch_model(
    size: ScratchConfig, encoder: DialogueEncoder, seed: int
) -> PreTrainedModel:
    """Build a GPT-2 with random weights that depend only on the seed."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=num_ids(encoder.tokenizer),
            n_positions=size.context,
            n_embd=size.width,
            n_layer=size.layers,
            n_head=size.heads,
            embd_pdrop=size.dropout,
            resid_pdrop=size.dropout,
            attn_pdrop=size.attention_dropout,
            # The tanh form of GELU, as in GPT-2, in torch's fused kernel: half the time of
            # "gelu_new".
            activation_function="gelu_pytorch_tanh",
            bos_token_id=encoder.stop_ids[0],
            eos_token_id=encoder.stop_ids[0],
            pad_token_id=encoder.pad_id,
        )
    )


def fit_vocabulary(model: PreTrainedModel, vocab_size: int, seed: int) -> int:
    """Give every token of the tokenizer a row of the embeddings; return how many rows were added.

    New rows are drawn around the mean of the old ones, so that a new token starts as an average
    one.
    """
    embeddings: Any = model.get_input_embeddings()
    rows: int = embeddings.weight.shape[0]
    if vocab_size <= rows:
        return 0
    torch.manual_seed(seed)
    model.resize_token_embeddings(vocab_size, mean_resizing=True)
    return vocab_size - rows


def require_rows(model: PreTrainedModel, encoder: DialogueEncoder, source: str) -> None:
    """Raise ModelError if the model has no embedding for a token that its chat template writes."""
    embeddings: Any = model.get_input_embeddings()
    rows: int = embeddings.weight.shape[0]
    (example,) = encoder.encode([Dialogue(_PROBE, line=1)])[0]
    if unknown := [index for index in example.input_ids.tolist() if index >= rows]:
        token = encoder.tokenizer.convert_ids_to_tokens(unknown[0])
        raise ModelError(
            f"{source}: its chat template writes {token} (id {unknown[0]}), but the model has "
            f"{rows} embeddings",
            hint="train it on dialogues first: model.pretrained in a config for `convo train`",
        )


def context_length(model: PreTrainedModel) -> int | None:
    """Return the longest sequence that the model's positions allow; None if it states no limit."""
    limit = _num_positions(model.config)
    if limit is None:
        return None
    table = getattr(
        getattr(getattr(model, "base_model", None), "embeddings", None), "position_embeddings", None
    )
    before_first = getattr(
        table, "padding_idx", None
    )  # RoBERTa counts positions from the padding token's id on
    return limit - (0 if before_first is None else before_first + 1)


def read_context_length(source: str, revision: str | None = None) -> int | None:
    """Return the longest sequence by the config of a folder or hub id; None also if the config
    cannot be read.
    """
    from transformers import AutoConfig

    try:
        return _num_positions(
            AutoConfig.from_pretrained(local_folder(source, revision), trust_remote_code=False)
        )
    except Exception:  # noqa: BLE001  (transformers raises many types; loading the model reports the problem)
        return None


def _num_positions(config: Any) -> int | None:
    config = config.get_text_config()
    limit = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    return int(limit) if limit and limit > 0 else None  # XLNet says -1


def require_context(model: PreTrainedModel, max_length: int) -> None:
    """Raise ModelError if training sequences are longer than the model can read."""
    limit = context_length(model)
    if limit is not None and max_length > limit:
        raise ModelError(
            f"dialogue.max_length is {max_length}, but the model reads at most {limit} tokens",
            hint=f"--set dialogue.max_length={limit}",
        )


def use_fast_activations(model: PreTrainedModel) -> int:
    """Replace transformers' GELU in its tanh form by torch's fused kernel; return the number of
    replacements.

    It is the same function in less than half the time and memory. The saved config keeps the old
    name.
    """
    from transformers import activations

    spelled_out = (
        activations.NewGELUActivation,
        activations.FastGELUActivation,
        activations.AccurateGELUActivation,
    )
    places = [
        (module, name)
        for module in model.modules()
        for name, child in module.named_children()
        if isinstance(child, spelled_out)
    ]
    for module, name in places:
        setattr(module, name, torch.nn.GELU(approximate="tanh"))
    return len(places)


def train_every_row(model: PreTrainedModel) -> None:
    """Train the embedding of the padding token like any other; it is often the end token too.

    When a model is built, transformers stops the gradient of the row that config.json names.
    Resizing the vocabulary changes which row that is (LLaMA's -1 is the last one), so a resumed run
    would train other rows.
    """
    embeddings: Any = model.get_input_embeddings()
    embeddings.padding_idx = None


def save_memory(model: PreTrainedModel) -> None:
    """Recompute activations in the backward pass instead of keeping them."""
    # transformers 5.23 renames the method and warns about the old name; 5.17 has only the old one.
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()


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
