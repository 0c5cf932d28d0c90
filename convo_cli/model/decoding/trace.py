"""Measurements of one streamed reply: its times, the reused part of its prompt, probabilities.

Shapes: V vocabulary, N tokens.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_MOST_PENDING = 16
"""Tokens whose logits are kept until their probabilities are computed in one operation."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Measurements of one streamed reply."""

    prompt_length: int
    """Tokens of the prompt."""
    num_reused: int
    """First tokens of the prompt that the model had read for an earlier reply."""
    first_token_seconds: float
    """From the call to the choice of the first token, with rendering and encoding."""
    seconds: float
    """Time of the whole reply, with that of the receiver of its text."""
    probabilities: tuple[float, ...]
    """The model's probability of each token, before temperature, penalty and limits."""


class TraceRecorder:
    """Records the tokens of a reply while they are chosen."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._first = 0.0
        self._pending: list[tuple[Tensor, int]] = []  # logits (1, V) and the chosen token
        self._probabilities: list[float] = []

    def record(self, logits: Tensor, tokens: Sequence[int]) -> None:
        """Record the token that was chosen from logits (1, V) of the model."""
        if not self._first:
            self._first = time.perf_counter() - self._started
        self._pending.append((logits, tokens[0]))
        if len(self._pending) == _MOST_PENDING:
            self._compute()

    def finish(self, prompt_length: int, num_reused: int) -> Trace:
        """Return the trace of the whole reply."""
        if self._pending:
            self._compute()
        seconds = time.perf_counter() - self._started
        probabilities = tuple(self._probabilities)
        return Trace(prompt_length, num_reused, self._first, seconds, probabilities)

    def _compute(self) -> None:
        logits = torch.cat([one for one, _ in self._pending]).float()  # (N, V)
        tokens = torch.tensor([token for _, token in self._pending], device=logits.device)
        # One fused operation: `logsumexp` takes twice as long on a CPU.
        chosen = logits.log_softmax(-1).gather(1, tokens.unsqueeze(1))  # (N, 1)
        self._probabilities += chosen.squeeze(1).exp().tolist()
        self._pending.clear()
