"""An exported folder in CTranslate2, as a program opens it."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convo_cli.export.folders.folder_tokenizer import FolderTokenizer


class CTranslate2Runtime(FolderTokenizer):
    """Model and tokenizer of a folder, on the CPU.

    Weights of a type that this CPU does not compute with are converted, as for any user.
    """

    name = "CTranslate2"

    def __init__(self, folder: Path) -> None:
        import ctranslate2

        super().__init__(folder)
        self.version = f"ctranslate2 {ctranslate2.__version__}"
        ctranslate2.set_log_level(logging.ERROR)
        self._generator: Any = ctranslate2.Generator(str(folder), device="cpu")
        self._tokens: list[str] = json.loads((folder / "vocabulary.json").read_bytes())

    def greedy(self, ids: Sequence[int], num_tokens: int) -> list[int]:
        """Return the most likely ids after a prompt."""
        [result] = self._generator.generate_batch(
            [self._spelled(ids)],
            sampling_topk=1,
            max_length=num_tokens,
            end_token=list(self.stop_ids),
            return_end_token=True,
            include_prompt_in_result=False,
        )
        reply: list[int] = result.sequences_ids[0]
        return reply

    def nll(self, ids: Sequence[int], start: int) -> list[float]:
        """Return the nats of ``ids[start:]``."""
        # Without a limit of 0, inputs are cut at 1,024 tokens.
        [result] = self._generator.score_batch([self._spelled(ids)], max_input_length=0)
        return [-value for value in result.log_probs[start - 1 :]]

    def _spelled(self, ids: Sequence[int]) -> list[str]:
        return [self._tokens[i] for i in ids]
