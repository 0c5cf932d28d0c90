"""Proofs that forward passes compute the logits of whole rows, for one model.

Shapes: T tokens, V vocabulary.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from convo_cli.model.context import context_length
from convo_cli.model.decoding.failures import CANNOT_COMPUTE
from convo_cli.model.decoding.passes.cached_forward import CachedForward
from convo_cli.model.decoding.passes.fast_forward import FastForward
from convo_cli.model.decoding.passes.forward import Forward, Rows
from convo_cli.text.encoder import DialogueEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LENGTH = 12
_STEPS = 2
"""Tokens of a row that are read one by one."""
_TOLERANCES = {torch.float32: 2e-4, torch.float64: 2e-4}
_COARSE = 0.05  # bf16 and fp16
"""Largest difference of logits that counts as rounding, in standard deviations of all logits."""


class Probe:
    """Two rows of ordinary tokens, and the logits that transformers computes for them."""

    def __init__(self, model: PreTrainedModel, encoder: DialogueEncoder) -> None:
        self._model = model
        self._tolerance = _TOLERANCES.get(model.dtype, _COARSE)
        length = min(_LENGTH, encoder.max_length, context_length(model) or _LENGTH)
        self._rows = [_ordinary_ids(model, encoder, length, seed) for seed in range(2)]
        self._expected: list[Tensor] = []

    @torch.inference_mode()
    def proves(self, holds: Callable[[Forward], bool], forward: Forward) -> bool:
        """Return whether a property holds; False if the model fails to compute what it needs."""
        try:
            if not self._expected:
                self._expected = list(self._logits())
            return holds(forward)
        except CANNOT_COMPUTE:  # the reply itself reports the problem
            return False

    def continues_alone(self, forward: Forward) -> bool:
        """A row that grows token by token has the logits of the whole row."""
        return self._continues(forward, (0,))

    def continues_padded(self, forward: Forward) -> bool:
        """The same holds for rows of different lengths in one batch, also after rows left it."""
        return self._continues(forward, (0, 1))

    def branches(self, forward: Forward) -> bool:
        """The same holds for rows that branch from a longer row, which is read as in training."""
        row, expected = self._rows[0], self._expected[0]
        row_ids = torch.tensor([row], device=self._model.device)
        model: Any = self._model
        plain = model(row_ids, attention_mask=torch.ones_like(row_ids), use_cache=False).logits[0]
        read_at = range(0, len(row), 2)
        whole = forward.read(row, read_at)
        if not (self._equal(whole.logits(read_at), plain[::2]) and self._equal(plain, expected)):
            return False
        cuts = [len(row) - 1, len(row) // 2] if len(row) > 2 else [1]
        rows = forward.branch([(whole, cut) for cut in cuts], _STEPS)
        logits = rows.step([row[cut] for cut in cuts])
        return all(self._equal(logits[n], expected[cut]) for n, cut in enumerate(cuts))

    def extends(self, forward: Forward) -> bool:
        """The same holds for a row that is cut after other tokens, and reads several at once."""
        row, other = self._rows
        if len(row) < 4:
            return False
        half = len(row) // 2
        rows, _ = forward.start([row[:half]], 0)
        rows.extend(other[half:])
        rows.cut(half)
        if not self._equal(rows.extend(row[half:-1])[0], self._expected[0][-2]):
            return False
        return self._equal(rows.step(row[-1:])[0], self._expected[0][-1])

    def joins(self, forward: Forward) -> bool:
        """The same holds for rows that join a batch of longer or shorter ones."""
        if len(self._rows[0]) < _LENGTH:
            return False
        lengths = {0: 6, 1: 9}  # of the rows by number
        rows, more = (forward.start([self._rows[n][: lengths[n]]], 0)[0] for n in (0, 1))
        rows.join(more)
        is_equal = self._steps(rows, (0, 1), lengths)
        copied = rows.take(0)
        is_equal = is_equal and self._steps(copied, (0,), lengths)
        rows.keep([1])
        rows.join(copied)
        return is_equal and self._steps(rows, (1, 0), lengths)

    def reads_together(self, forward: FastForward) -> bool:
        """The same holds for rows that read different numbers of tokens in one pass."""
        rows = [forward.new_row(2) for _ in self._rows]
        lengths = [0, 0]
        for sizes in ((3, 1), (1, 4), (len(self._rows[0]) - 4, 1)):
            begins = list(lengths)
            lengths = [begin + size for begin, size in zip(begins, sizes, strict=True)]
            spans = zip(self._rows, begins, lengths, strict=True)
            new = [ids[begin:end] for ids, begin, end in spans]
            if not all(new):
                return False
            logits = forward.read_together(list(zip(rows, new, strict=True)))
            for place, length in enumerate(lengths):
                if not self._equal(logits[place], self._expected[place][length - 1]):
                    return False
        return True

    def _steps(self, rows: Rows, numbers: tuple[int, ...], lengths: dict[int, int]) -> bool:
        """Append the next token to each row; return whether the logits are right."""
        logits = rows.step([self._rows[number][lengths[number]] for number in numbers])
        is_equal = all(
            self._equal(logits[place], self._expected[number][lengths[number]])
            for place, number in enumerate(numbers)
        )
        lengths.update({number: lengths[number] + 1 for number in numbers})
        return is_equal

    def _continues(self, forward: Forward, numbers: tuple[int, ...]) -> bool:
        steps = min(_STEPS, len(self._rows[0]) - 1)
        # The second row of a batch is shorter, so it is padded.
        begins = [max(1, len(self._rows[0]) - steps - 2 * n) for n in range(len(numbers))]
        chosen = [self._rows[number] for number in numbers]
        rows, logits = forward.start(
            [row[:n] for row, n in zip(chosen, begins, strict=True)], steps
        )
        places = list(range(len(numbers)))
        for step in range(steps):
            for place, kept in enumerate(places):
                expected = self._expected[numbers[kept]][begins[kept] + step - 1]
                if not self._equal(logits[place], expected):
                    return False
            if step == steps - 1 and len(places) > 1:
                rows.keep([1])
                places = [1]
            logits = rows.step([chosen[kept][begins[kept] + step] for kept in places])
        return all(
            self._equal(logits[place], self._expected[numbers[kept]][begins[kept] + steps - 1])
            for place, kept in enumerate(places)
        )

    def _logits(self) -> Tensor:  # (2, T, V)
        """Return the logits of the whole rows, with the positions of transformers' `generate`."""
        whole = CachedForward(self._model, has_cache=False)
        ids = torch.tensor(self._rows, device=self._model.device)
        logits: Tensor = whole.call(ids, torch.ones_like(ids), None, keep=0).logits
        return logits

    def _equal(self, actual: Tensor, expected: Tensor) -> bool:
        error = (actual.float() - expected.float()).abs().max()
        return bool(error <= self._tolerance * self._expected[0].float().std())


def _ordinary_ids(
    model: PreTrainedModel, encoder: DialogueEncoder, length: int, seed: int
) -> list[int]:
    """Return random ids that are no special tokens."""
    embeddings: Any = model.get_input_embeddings()
    num = min(len(encoder.tokenizer), embeddings.weight.shape[0])
    draws = random.Random(seed)
    ids: list[int] = []
    for _ in range(1000):
        token = draws.randrange(num)
        if not encoder.is_special(token):
            ids.append(token)
        if len(ids) == length:
            break
    return ids or [0]
