"""Settings that follow from the size of the training data: vocabulary, batches, steps, evaluations.

The numbers of a new model suit a laptop CPU: as many epochs as help a small model, but no more
tokens than fit into about an hour of training. A pretrained model keeps the epochs of its preset.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

from convo_cli.config.presets import Preset
from convo_cli.config.schema import RunConfig, ScratchConfig
from convo_cli.wording import counted

EPOCHS = 6
"""Epochs of a new model, unless they exceed `MAX_TOKENS`.

Measured with 60 dialogues: the validation loss ended at 3.96 after 4 epochs, at 3.86 after 6, its
best, and at 3.97 after 10, where its best was 3.85 after 5.
"""
MAX_TOKENS = 10_000_000
"""Most tokens that a new model is trained on: about an hour on two laptop cores."""
MAX_EPOCHS = 20
"""Most epochs of a pretrained model whose preset counts steps."""
MIN_VOCABULARY = 500
"""More than the bytes and the printable ASCII characters, which are always in a vocabulary."""
MAX_VOCABULARY = 16_000
_PIECES_PER_ROOT = 3.2
"""Pieces for each square root of a byte: 8,000 for the 6 MB of DailyDialog."""
_FIXED_PIECES = 400
"""The bytes, the printable ASCII characters and a few more."""
_BYTES_PER_TOKEN = 2.5
_STEPS_PER_EPOCH = 8
"""Fewest steps of an epoch: batches of small data are made smaller to reach them."""
_LARGE = 20_000
"""Number of examples from which on the batches of a new model are twice as large."""
_MAX_INTERVAL = 10_000
"""Most steps between evaluations, and therefore between checkpoints."""
_LONG_EPOCH = 1000
"""Longest epoch, in steps, for which one evaluation an epoch is enough."""


@dataclass(frozen=True, slots=True)
class DataSize:
    """Size of training data; ``is_exact`` is False if most of it was not read."""

    num_dialogues: int
    num_bytes: int
    """UTF-8 bytes of all turns."""
    num_characters: int
    """Different characters that cover tokenizer.character_coverage of the text."""
    long_dialogue: int
    """Bytes that 95 % of the dialogues do not exceed."""
    longest_turn: int
    """Bytes of the longest turn that was read."""
    is_exact: bool = True
    num_held_back: int = 0
    """Dialogues that `data.validation_split` holds back; 0 if it cannot, or is not set."""

    def sides(self) -> tuple[DataSize, DataSize]:
        """Return the sizes of both sides of the split."""
        num_kept = self.num_dialogues - self.num_held_back
        num_bytes = round(self.num_bytes * num_kept / self.num_dialogues)
        return (
            replace(self, num_dialogues=num_kept, num_bytes=num_bytes),
            replace(self, num_dialogues=self.num_held_back, num_bytes=self.num_bytes - num_bytes),
        )


@dataclass(frozen=True, slots=True)
class Sizing:
    """Values chosen for the data, by dotted key, and why."""

    values: Mapping[str, Any]
    reasons: Mapping[str, str]
    summary: str

    def apply(self, preset: Preset) -> Preset:
        """Return the preset with these values and their reasons as comments."""
        values = deepcopy(dict(preset.values))
        for path, value in self.values.items():
            *sections, name = path.split(".")
            section = values
            for outer in sections:
                section = section.setdefault(outer, {})
            section[name] = value
        return replace(preset, values=values, reasons={**preset.reasons, **self.reasons})


def size_for(
    preset: Preset,
    train: DataSize,
    validation: DataSize,
    *test: DataSize,
    names: Sequence[str],
) -> Sizing:
    """Choose what depends on the size of the data; ``names`` are the training files."""
    chooser = _Chooser(preset.config(), train)
    if chooser.is_new:
        chooser.choose_vocabulary_and_length()
    chooser.choose_long_turns(validation, *test)
    chooser.choose_steps()
    chooser.choose_evaluations(validation.num_dialogues)
    return Sizing(chooser.values, chooser.reasons, chooser.summary(names))


class _Chooser:
    """Chooses one group of settings after another; later groups follow from earlier ones."""

    def __init__(self, config: RunConfig, size: DataSize) -> None:
        self._config = config
        self._size = size
        self.is_new = isinstance(config.model.origin, ScratchConfig)
        self.values: dict[str, Any] = {}
        self.reasons: dict[str, str] = {}
        self._max_length = config.dialogue.max_length
        self._batch = self._steps = 1
        self._steps_per_epoch = 1.0

    def choose_vocabulary_and_length(self) -> None:
        """Choose the vocabulary and the context of a new model."""
        size = self._size
        pieces = max(
            MIN_VOCABULARY,
            _PIECES_PER_ROOT * math.sqrt(size.num_bytes),
            _FIXED_PIECES + 1.5 * size.num_characters,
        )
        self._choose(
            "tokenizer.vocab_size",
            math.ceil(min(pieces, MAX_VOCABULARY) / 100) * 100,
            f"Chosen for {_amount(size.num_bytes)} of text.",
        )
        self._max_length = 256
        while self._max_length < min(_tokens(size.long_dialogue), 1024):
            self._max_length *= 2
        self._choose(
            "dialogue.max_length", self._max_length, "Chosen so that 95 % of the dialogues fit."
        )
        self._choose(
            "model.scratch.context", self._max_length, "Chosen: as long as dialogue.max_length."
        )

    def choose_long_turns(self, *held_out: DataSize) -> None:
        """Split long turns if there may be any; by default, one long turn stops the run."""
        sizes = (self._size, *held_out)
        longest = max(size.longest_turn for size in sizes)
        is_exact = all(size.is_exact for size in sizes)
        if not is_exact or 2 * _tokens(longest) > self._max_length:
            reason = "Chosen because a turn may be longer than dialogue.max_length."
            self._choose("dialogue.long_turns", "split", reason)

    def choose_steps(self) -> None:
        """Choose batches, steps and warm-up."""
        tokens = _tokens(self._size.num_bytes)
        examples = max(self._size.num_dialogues, math.ceil(tokens / self._max_length))
        training = self._config.training
        if training.batch_size is not None:
            largest = 2 * training.batch_size if self._is_large(examples) else training.batch_size
            small = 2 ** int(math.log2(max(1, examples // _STEPS_PER_EPOCH)))
            self._batch = min(largest, small)
            reason = f"Chosen for {counted(examples, 'example')}."
            self._choose("training.batch_size", self._batch, reason)
        self._steps_per_epoch = examples / self._batch
        if self.is_new:
            affordable = max(1, MAX_TOKENS * examples // max(tokens, 1) // self._batch)
            self._steps = _rounded(min(EPOCHS * self._steps_per_epoch, affordable))
            self._choose("training.max_steps", self._steps, f"Chosen: {self._epochs()}.")
        elif training.epochs is not None:
            self._steps = max(1, round(training.epochs * self._steps_per_epoch))
        else:
            assert training.max_steps is not None
            self._steps = min(training.max_steps, _rounded(MAX_EPOCHS * self._steps_per_epoch))
            self._choose("training.max_steps", self._steps, f"Chosen: {self._epochs()}.")
        longest = 100 if self.is_new else training.warmup_steps
        warmup = min(longest, self._steps // 10)
        self._choose("training.warmup_steps", warmup, "Chosen: at most a tenth of the run.")

    def choose_evaluations(self, num_validation: int) -> None:
        """Choose when to evaluate, and on how much, so that the steps take most of the time."""
        every = self._config.evaluation.every_steps
        if every is None and self._steps_per_epoch <= _LONG_EPOCH:
            interval = math.ceil(self._steps_per_epoch)
        else:
            interval = _nice(min(self._steps / 10, _MAX_INTERVAL))
            reason = "Chosen for about ten evaluations and checkpoints in the run."
            self._choose("evaluation.every_steps", interval, reason)
        affordable = max(50, _nice(0.3 * interval * self._batch))
        limit = self._config.evaluation.max_dialogues
        if num_validation > affordable and (limit is None or limit > affordable):
            reason = "Chosen so that evaluations stay short."
            self._choose("evaluation.max_dialogues", affordable, reason)

    def summary(self, names: Sequence[str]) -> str:
        """Return one line about the data and what was chosen for it."""
        about = "" if self._size.is_exact else "about "
        held_back = f" (and {self._size.num_held_back:,} held back for validation)"
        rest = held_back if self._size.num_held_back else ""
        parts = [counted(self._steps, "step"), f"batches of {self._batch}"]
        if self.is_new:
            parts.insert(0, f"a vocabulary of {self.values['tokenizer.vocab_size']:,}")
        data = f"{about}{counted(self._size.num_dialogues, 'dialogue')}{rest}"
        return f"sized for {data} in {', '.join(names)}: {', '.join(parts)}, {self._epochs()}"

    def _is_large(self, examples: int) -> bool:
        return self.is_new and examples >= _LARGE

    def _epochs(self) -> str:
        epochs = self._steps / self._steps_per_epoch
        if epochs < 0.995:
            whole = f"one epoch is {counted(math.ceil(self._steps_per_epoch), 'step')}"
            return f"{100 * epochs:.2g} % of the training data ({whole})"
        return f"{epochs:.2g} epochs" if round(epochs, 1) != 1 else "1 epoch"

    def _choose(self, key: str, value: Any, reason: str) -> None:
        self.values[key], self.reasons[key] = value, reason


def _tokens(num_bytes: int) -> int:
    """Estimate how many tokens a text becomes."""
    return math.ceil(num_bytes / _BYTES_PER_TOKEN)


def _rounded(steps: float) -> int:
    """Round down to two digits, which are easier to read."""
    power = 10 ** max(0, math.floor(math.log10(max(steps, 1))) - 1)
    return max(1, int(steps // power * power))


def _nice(number: float) -> int:
    """Round up to 1, 2 or 5 times a power of ten."""
    power: int = 10 ** math.floor(math.log10(max(number, 1)))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= number)


def _amount(num_bytes: int) -> str:
    megabytes = num_bytes / 1e6
    if megabytes < 1:
        return f"{math.ceil(num_bytes / 1e3)} kB"
    return f"{megabytes:.1f} MB" if megabytes < 10 else f"{megabytes:,.0f} MB"
