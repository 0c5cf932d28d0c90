"""An exported folder in ONNX Runtime, as a program opens it.

Shapes: T tokens, V entries of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convo_cli.export.folders.folder_tokenizer import FolderTokenizer

Array = NDArray[Any]


class OnnxRuntime(FolderTokenizer):
    """Graph and tokenizer of a folder, on the CPU."""

    name = "ONNX Runtime"

    def __init__(self, folder: Path) -> None:
        import onnxruntime

        super().__init__(folder)
        self.version = f"onnxruntime {onnxruntime.__version__}"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._session: Any = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self._inputs = {one.name: one for one in self._session.get_inputs()}

    def greedy(self, ids: Sequence[int], num_tokens: int) -> list[int]:
        """Return the most likely ids after a prompt; a pass after the first reads one token."""
        reply = list[int]()
        new, cache, length = list(ids), self._empty_cache(), 0
        while len(reply) < num_tokens:
            logits, cache = self._pass(new, cache, length)
            length += len(new)
            new = [int(logits[-1].argmax())]
            reply += new
            if new[0] in self.stop_ids:
                break
        return reply

    def nll(self, ids: Sequence[int], start: int) -> list[float]:
        """Return the nats of ``ids[start:]``."""
        logits, _ = self._pass(ids, self._empty_cache(), 0)
        used = logits[start - 1 : -1].astype(np.float64)  # (T - start, V)
        used -= used.max(axis=-1, keepdims=True)
        total = np.log(np.exp(used).sum(axis=-1))
        targets = np.array(ids[start:])[:, None]  # (T - start, 1)
        losses: list[float] = (total - np.take_along_axis(used, targets, axis=-1)[:, 0]).tolist()
        return losses

    def _pass(self, ids: Sequence[int], cache: Sequence[Array], past: int) -> tuple[Array, Any]:
        """Return the logits (T, V) of new ids after ``past`` ones, and the longer cache."""
        length = past + len(ids)
        feed = {
            "input_ids": np.array([list(ids)], np.int64),
            "attention_mask": np.ones((1, length), np.int64),
            "position_ids": np.arange(past, length, dtype=np.int64)[None],
            **dict(zip(self._caches(), cache, strict=True)),
        }
        given = {name: value for name, value in feed.items() if name in self._inputs}
        logits, *longer = self._session.run(None, given)
        return logits[0], longer

    def _caches(self) -> list[str]:
        return [name for name in self._inputs if name.startswith("past_key_values.")]

    def _empty_cache(self) -> list[Array]:
        stated = [self._inputs[name] for name in self._caches()]
        return [
            np.zeros(
                (1, one.shape[1], 0, one.shape[3]),
                np.float16 if one.type == "tensor(float16)" else np.float32,
            )
            for one in stated
        ]
