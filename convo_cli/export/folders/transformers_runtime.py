"""An exported folder in plain transformers, as another program would open it.

Shapes: T tokens, V entries of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from convo_cli.export.folders.folder_tokenizer import FolderTokenizer


class TransformersRuntime(FolderTokenizer):
    """Model and tokenizer of a folder; replies obey its generation_config.json.

    Weights are computed in the type in which they are stored, because that is what
    `from_pretrained` gives a user: a bf16 export is compared as it will reply.
    """

    def __init__(self, folder: Path, model: Any = None) -> None:
        from transformers import AutoModelForCausalLM

        super().__init__(folder)
        if model is None:
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype="auto", trust_remote_code=False, weights_only=True
            )
        self._model: Any = model.eval()
        self.classes = (type(self._model).__name__, type(self._tokenizer).__name__)

    @property
    def stop_ids(self) -> Sequence[int]:
        """Return the ids that end a reply of the model."""
        stated = self._model.generation_config.eos_token_id
        return [] if stated is None else [stated] if isinstance(stated, int) else list(stated)

    def greedy(self, ids: Sequence[int], num_tokens: int) -> list[int]:
        """Return the reply of `generate` without sampling."""
        input_ids = torch.tensor([list(ids)])  # (1, T)
        with torch.inference_mode():
            output = self._model.generate(
                input_ids,
                attention_mask=torch.ones_like(input_ids),
                do_sample=False,
                max_new_tokens=num_tokens,
            )
        reply: list[int] = output[0, len(ids) :].tolist()
        return reply

    def nll(self, ids: Sequence[int], start: int) -> list[float]:
        """Return the nats of ``ids[start:]``."""
        input_ids = torch.tensor([list(ids)])  # (1, T)
        with torch.inference_mode():
            logits = self._model(input_ids).logits[0, start - 1 : -1]  # (T - start, V)
        targets = input_ids[0, start:, None]  # (T - start, 1)
        found = -logits.float().log_softmax(dim=-1).gather(1, targets)[:, 0]
        losses: list[float] = found.tolist()
        return losses
