"""Proof that a model predicts every token only from the tokens before it.

`AutoModelForCausalLM` also opens encoders: BERT and RoBERTa with ``is_decoder: false``, XLM, XLNet.
They see the token that they should predict, so their loss and their replies mean nothing.

Shapes: R rows, T tokens, V vocabulary.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from convo_cli.errors import ModelError, first_line, is_out_of_memory
from convo_cli.model.context import context_length
from convo_cli.model.decoding.failures import CANNOT_COMPUTE
from convo_cli.storage.other_models import DECODER_HINT
from convo_cli.text.encoder import DialogueEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LENGTH = 24
_TOLERANCE = 1e-4
"""Largest change of a logit that counts as rounding, in standard deviations of all logits.

With random weights in fp32, the logits of the 130 causal architectures of transformers 5.23 change
by at most 6e-5 (those of 128 not at all), those of the 18 that see later tokens by at least 2e-3.
"""


def require_causal(model: PreTrainedModel, encoder: DialogueEncoder) -> None:
    """Raise ModelError if a change of the last tokens changes the logits of earlier tokens.

    Leaves the model in evaluation mode. Computes in the model's own type, without autocast.
    """
    model.eval()
    length = min(_LENGTH, context_length(model) or _LENGTH)
    # Of two neighbouring cuts, at least one is inside a block of tokens that see each other. The
    # cut after the first token finds a prefix that sees later tokens.
    cuts = sorted({1, length // 2, length - 2, length - 1} & set(range(1, length)))
    rows = _rows(model, encoder, length, cuts).to(model.device)
    try:
        with torch.no_grad(), torch.autocast(model.device.type, enabled=False):
            logits: Tensor = model(
                input_ids=rows, attention_mask=torch.ones_like(rows), use_cache=False
            ).logits
    except CANNOT_COMPUTE as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(
            f"a model of type {model.config.model_type} does not run on text alone "
            f"({first_line(error)})",
            hint=DECODER_HINT,
        ) from error
    logits = logits.float()  # (R, T, V)
    spread = logits[0].std()
    for cut, changed in zip(cuts, logits[1:], strict=True):
        moved = (changed[:cut] - logits[0, :cut]).abs().max()
        if moved > _TOLERANCE * spread:  # False if a logit is NaN: the first step reports that
            raise _refusal(model, cut, float(moved / spread))


def _rows(
    model: PreTrainedModel, encoder: DialogueEncoder, length: int, cuts: Sequence[int]
) -> Tensor:
    """Return (R, T): a row of ordinary tokens, and for each cut one with other tokens after it."""
    embeddings: Any = model.get_input_embeddings()
    num_embeddings: int = embeddings.weight.shape[0]
    ids = sorted(set(encoder.tokenizer.get_vocab().values()))
    ordinary = [index for index in ids if index < num_embeddings and not encoder.is_special(index)]
    tokens, others = torch.tensor(random.Random(0).choices(ordinary, k=2 * length)).chunk(2)
    return torch.stack([tokens, *(torch.cat([tokens[:cut], others[cut:]]) for cut in cuts)])


def _refusal(model: PreTrainedModel, cut: int, moved: float) -> ModelError:
    kind = model.config.model_type
    is_encoder = getattr(model.config.get_text_config(), "is_decoder", None) is False
    return ModelError(
        f"a model of type {kind} is not a causal language model: it sees the tokens that it should "
        f"predict (changing token {cut + 1} moves the logits of earlier tokens by {moved:.2g} "
        "standard deviations)" + ("; its config.json says is_decoder: false" if is_encoder else ""),
        hint=("set is_decoder to true in its config.json, or " if is_encoder else "")
        + DECODER_HINT,
    )
