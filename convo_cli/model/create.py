"""Creation of a causal language model with random weights, and its preparation for training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from convo_cli.config.schema import ScratchConfig
from convo_cli.data.dialogue import Turn
from convo_cli.errors import DataError, ModelError
from convo_cli.model.adapters.lora import plain_module
from convo_cli.model.memory.free import require_room
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.tokenizers.vocabulary import num_ids
from convo_cli.wording import counted

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_PROBE = (Turn("user", "a"), Turn("assistant", "b"))


def build_scratch_model(
    size: ScratchConfig, encoder: DialogueEncoder, seed: int
) -> PreTrainedModel:
    """Build a GPT-2 with random weights that depend only on the seed.

    OutOfMemoryError if its weights would not fit.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=num_ids(encoder.tokenizer),
        n_positions=size.context,
        n_embd=size.width,
        n_layer=size.layers,
        n_head=size.heads,
        embd_pdrop=size.dropout,
        resid_pdrop=size.dropout,
        attn_pdrop=size.attention_dropout,
        # GPT-2's tanh form of GELU in torch's fused kernel: half the time of "gelu_new".
        activation_function="gelu_pytorch_tanh",
        bos_token_id=encoder.tokenizer.bos_token_id,
        eos_token_id=encoder.stop_ids[0],
        pad_token_id=encoder.pad_id,
    )
    with torch.device("meta"):
        num_parameters = GPT2LMHeadModel(config).num_parameters()
    require_room(
        4 * num_parameters,
        f"a model of {num_parameters:,} parameters",
        "lower model.scratch.layers, model.scratch.width or tokenizer.vocab_size",
    )
    torch.manual_seed(seed)
    return GPT2LMHeadModel(config)


def fit_vocabulary(model: PreTrainedModel, vocab_size: int, seed: int) -> int:
    """Give every token of the tokenizer a row of the embeddings; return how many rows were added.

    New rows are drawn around the mean of the old ones, so a new token starts as an average one.
    """
    rows = num_embeddings(model)
    if vocab_size <= rows:
        return 0
    torch.manual_seed(seed)
    model.resize_token_embeddings(vocab_size, mean_resizing=True)
    return vocab_size - rows


def num_embeddings(model: PreTrainedModel) -> int:
    """Return the number of rows of the input embeddings."""
    embeddings: Any = model.get_input_embeddings()
    return int(embeddings.weight.shape[0])


def require_rows(model: PreTrainedModel, encoder: DialogueEncoder, source: str) -> None:
    """Raise ModelError if the model has no embedding for a token that its chat template writes.

    Also if the template refuses a plain dialogue.
    """
    rows = num_embeddings(model)
    try:
        ids = encoder.render_ids(_PROBE)
    except DataError as error:
        raise ModelError(
            f"{source}: {error}",
            hint="train it on dialogues first: set model.pretrained and dialogue.template: turns "
            "in a config for `convo train`",
        ) from error
    if unknown := [index for index in ids if index >= rows]:
        token = encoder.tokenizer.convert_ids_to_tokens(unknown[0])
        raise ModelError(
            f"{source}: its chat template writes {token} (id {unknown[0]}), but the model has only "
            f"{counted(rows, 'embedding')}",
            hint="train it on dialogues first: set model.pretrained in a config for `convo train`",
        )


def use_fast_activations(model: PreTrainedModel) -> int:
    """Replace transformers' tanh form of GELU by torch's fused kernel; return how many there were.

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
    embeddings: Any = plain_module(model.get_input_embeddings())
    embeddings.padding_idx = None


def save_memory(model: PreTrainedModel) -> None:
    """Recompute activations in the backward pass instead of keeping them."""
    # transformers 5.23 renames the method and warns about the old name; 5.17 has only the old one.
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()


def keep_activations(model: PreTrainedModel) -> None:
    """Keep activations for the backward pass, which undoes `save_memory`."""
    getattr(model, "activation_checkpointing_disable", model.gradient_checkpointing_disable)()
