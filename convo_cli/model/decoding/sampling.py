"""Choice of the next token of each row: greedy, or sampled with a random source for each row.

Scores pass through transformers' own processors, in the order of its `generate`.

Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from convo_cli.config.schema import GenerationSettings

_COLDEST = 1e-4
"""Lowest temperature for sampling; a lower one would overflow, so decoding is greedy below it."""


def is_sampling(settings: GenerationSettings) -> bool:
    """Return whether replies are sampled; otherwise decoding is greedy."""
    return settings.temperature >= _COLDEST


def reply_randomness(seed: int, index: int) -> random.Random:
    """Return the random source of one reply, which depends only on these two numbers."""
    return random.Random(f"{seed} {index}")


class TokenChooser:
    """Chooses a token for each row of a batch from the model's logits."""

    def __init__(
        self,
        settings: GenerationSettings,
        prompts: Sequence[Sequence[int]],
        randomness: Sequence[random.Random],
    ) -> None:
        """Take the prompt and the random source of each row, in the order of the logits."""
        self._penalty = settings.repetition_penalty
        self._prompts = list(prompts)
        self._randomness = list(randomness)
        self._used: Tensor | None = None  # (B, V) tokens of the prompt and the reply so far
        self._is_sampling = is_sampling(settings)
        self._warpers = _warpers(settings)

    def keep(self, places: Sequence[int]) -> None:
        """Keep only the rows at these places, in this order."""
        self._prompts = [self._prompts[place] for place in places]
        self._randomness = [self._randomness[place] for place in places]
        if self._used is not None:
            self._used = self._used[list(places)]

    def join(self, other: TokenChooser) -> None:
        """Append the rows of a chooser with the same settings, which must not be used after.

        Both must have chosen a token before.
        """
        self._prompts += other._prompts
        self._randomness += other._randomness
        if self._used is not None and other._used is not None:
            self._used = torch.cat([self._used, other._used])

    def choose(self, logits: Tensor) -> list[int]:
        """Return the next token of each row from logits (B, V).

        Raises ArithmeticError if a token cannot be sampled because scores are not finite.
        """
        scores = logits if self._penalty == 1.0 else self._penalised(logits.float())
        tokens = self._sample(scores.float()) if self._is_sampling else scores.argmax(-1)
        if self._used is not None:
            self._used.scatter_(1, tokens.unsqueeze(1), True)
        chosen: list[int] = tokens.tolist()
        return chosen

    def _penalised(self, scores: Tensor) -> Tensor:  # (B, V)
        """Lower the scores of used tokens by transformers' rule; padding never counts as used."""
        if self._used is None:
            self._used = torch.zeros_like(scores, dtype=torch.bool)
            for row, prompt in enumerate(self._prompts):
                self._used[row, torch.tensor(prompt, device=scores.device)] = True
        lowered = torch.where(scores < 0, scores * self._penalty, scores / self._penalty)
        return torch.where(self._used, lowered, scores)

    def _sample(self, scores: Tensor) -> Tensor:  # (B,)
        # One number between 0 and 1 for each row selects the token. `torch.multinomial` would draw
        # from one source for all rows, so a reply would depend on the batch.
        unused: Any = None  # these processors read only the scores
        probabilities = self._warpers(unused, scores).softmax(-1)  # (B, V)
        exact = torch.float32 if scores.device.type == "mps" else torch.float64  # MPS lacks float64
        sums = probabilities.to(exact).cumsum(-1)  # (B, V)
        totals = sums[:, -1:].contiguous()  # (B, 1)
        if not totals.isfinite().all():
            raise ArithmeticError("the scores of the next token are not finite")
        numbers = [[source.random()] for source in self._randomness]
        drawn = torch.tensor(numbers, dtype=exact, device=scores.device) * totals  # (B, 1)
        # The product may round up to the total, which no sum exceeds.
        last = torch.searchsorted(sums, totals)
        return torch.minimum(torch.searchsorted(sums, drawn, right=True), last).squeeze(1)


def _warpers(settings: GenerationSettings) -> LogitsProcessorList:
    warpers = LogitsProcessorList([TemperatureLogitsWarper(float(settings.temperature or 1.0))])
    if settings.top_k:
        warpers.append(TopKLogitsWarper(settings.top_k))
    if settings.top_p < 1.0:
        warpers.append(TopPLogitsWarper(settings.top_p))
    if settings.min_p > 0.0:
        warpers.append(MinPLogitsWarper(settings.min_p))
    return warpers
