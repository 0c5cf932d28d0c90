"""Choice of the forward passes for generation, each verified on the model's own logits.

`Forward` needs features that not every model of transformers supports correctly: a cache that
continues a row, left padding with explicit positions, a cache that can be cut at any token. So each
feature is used only if its logits equal those of a whole row without a cache.

Shapes: T tokens, V vocabulary.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from convo_cli.model.context import context_length
from convo_cli.model.decoding.failures import CANNOT_COMPUTE
from convo_cli.model.decoding.passes.cached_forward import CachedForward
from convo_cli.model.decoding.passes.fast_forward import FastForward, fits_memory
from convo_cli.model.decoding.passes.forward import Forward
from convo_cli.model.decoding.passes.networks import network_for
from convo_cli.text.encoder import DialogueEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LENGTH = 12
_STEPS = 2
"""Tokens of a row that are read one by one."""
_TOLERANCES = {torch.float32: 2e-4, torch.float64: 2e-4}
_COARSE = 0.05  # bf16 and fp16
"""Largest difference of logits that counts as rounding, in standard deviations of all logits."""
_MOST_ROWS = {"cpu": 16}
"""Most rows of a batch: with 6 layers of width 384 on a CPU, 64 rows are slower a reply than 16."""
_MOST_ROWS_ELSEWHERE = 64


class ProvenForward:
    """The fastest forward passes that are correct for a model in evaluation mode.

    They are valid for the model's current weights. Padding and branching are verified on first use.
    """

    def __init__(self, model: PreTrainedModel, encoder: DialogueEncoder) -> None:
        self._probe = _Probe(model, encoder)
        self._most_rows = _MOST_ROWS.get(model.device.type, _MOST_ROWS_ELSEWHERE)
        self.passes: Forward = CachedForward(model, has_cache=False)
        for forward in filter(None, (_fast_forward(model, encoder), CachedForward(model))):
            if self._probe.proves(self._probe.continues_alone, forward):
                self.passes = forward
                break

    @cached_property
    def max_rows(self) -> int:
        """Return the largest number of rows in a batch; 1 if the model cannot read padded rows."""
        is_proved = self._probe.proves(self._probe.continues_padded, self.passes)
        return self._most_rows if is_proved else 1

    @cached_property
    def can_branch(self) -> bool:
        """Return whether one pass over a dialogue can serve all of its turns."""
        return self._probe.proves(self._probe.branches, self.passes)


def weights_version(model: PreTrainedModel) -> object:
    """Return a value that changes whenever weights are updated in place, moved or replaced."""
    return [
        (weight.data_ptr(), 0 if weight.is_inference() else weight._version)
        for weight in model.parameters()
    ]


def _fast_forward(model: PreTrainedModel, encoder: DialogueEncoder) -> Forward | None:
    is_plain = model.device.type == "cpu" and model.dtype == torch.float32
    if not is_plain or not fits_memory(model):
        return None
    try:
        network = network_for(model, encoder.max_length)
    except CANNOT_COMPUTE:  # weights of other names or shapes than the family's
        return None
    return None if network is None else FastForward(network)


class _Probe:
    """Two rows of ordinary tokens, and the logits that transformers computes for them."""

    def __init__(self, model: PreTrainedModel, encoder: DialogueEncoder) -> None:
        self._model = model
        self._tolerance = _TOLERANCES.get(model.dtype, _COARSE)
        length = min(_LENGTH, encoder.max_length, context_length(model) or _LENGTH)
        self._rows = [_ordinary_ids(model, encoder, length, seed) for seed in range(2)]
        self._expected: list[Tensor] = []

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
