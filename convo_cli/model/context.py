"""Context length of a model: the longest sequence that its positions allow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convo_cli.errors import ModelError
from convo_cli.text.tokenizers.hub import local_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def context_length(model: PreTrainedModel) -> int | None:
    """Return the longest sequence that the model's positions allow; None if it states no limit."""
    limit = _num_positions(model.config)
    if limit is None:
        return None
    embeddings = getattr(getattr(model, "base_model", None), "embeddings", None)
    table = getattr(embeddings, "position_embeddings", None)
    # RoBERTa's first position is the one after the id of the padding token.
    before_first = getattr(table, "padding_idx", None)
    return limit - (0 if before_first is None else before_first + 1)


def read_context_length(source: str, revision: str | None = None) -> int | None:
    """Return the limit in the config of a folder or hub id; None if it cannot be read."""
    from transformers import AutoConfig

    folder = local_folder(source, revision)
    try:
        return _num_positions(AutoConfig.from_pretrained(folder, trust_remote_code=False))
    except Exception:  # noqa: BLE001  (of many types; loading the model reports the problem)
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
