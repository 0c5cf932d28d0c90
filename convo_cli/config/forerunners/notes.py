"""Notes and rules that answer keys of more than one form of config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convo_cli.config.forerunners.old_config import OldConfig

ALL_GPUS = "training.batch_size counts the examples of all GPUs: multiply it by their number"
ALWAYS_STOPS = "a loss or gradient that is not finite always stops the run"
DEVICE_IS_LOGGED = "the statistics of the device are always logged"
ENCODED_ONCE = "dialogues are encoded once, before the first step"
FITTED_PASSES = {"training.micro_batch_size": "auto"}
LIVE_VIEW = "a terminal has the live view, a log plain lines; --quiet turns both off"
MODEL_SIZE = "`convo train --dry-run` shows the size of the model"
NO_AVERAGE = "convo does not average weights; see checkpoints.keep_best"
NOT_SET = "it is not set"
ONE_DEVICE = "it matters only with several devices"
STEP_STAYS = "a forward pass has as many examples as fit in memory, a step training.batch_size"
STOP = "`touch RUN_DIR/stop` or SIGTERM stops a run, and `convo resume` continues it"
SUPPORTED_DEVICES = "convo trains on a CPU, a CUDA GPU or Apple's MPS"
WHOLE_SHUFFLE = "the whole data set is shuffled in every epoch"


def whole_batch(num_devices: int) -> str:
    """Return the note of a key that names several devices."""
    return f"training.batch_size counts the examples of all {num_devices}"


def is_one_of(value: Any, allowed: Sequence[Any]) -> bool:
    """Return whether a value is one of these; 1, 1.0 and true are three values here."""
    return any(type(value) is type(other) and value == other for other in allowed)


@dataclass(frozen=True, slots=True)
class Rule:
    """The answer for a key that has no counterpart."""

    note: str
    """Why the key is not needed."""
    usual: tuple[Any, ...] | None = None
    """Values for which the note is true; None: all."""
    otherwise: str = ""
    """What exists instead for any other value."""


def apply_rules(old: OldConfig, section: str, rules: Mapping[str, Rule]) -> None:
    """Answer the keys of a section by a table."""
    for name, rule in rules.items():
        key = f"{section}.{name}" if section else name
        if rule.usual is None or is_one_of(old.get(key), rule.usual):
            old.not_needed(key, rule.note)
        else:
            old.unsupported(key, rule.otherwise)
