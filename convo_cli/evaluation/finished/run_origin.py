"""Training data of a model's run: facts about it, and how many evaluated dialogues it has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convo_cli.data.held_out.training_facts import OF_THE_RUN, TrainingFacts, collect_facts
from convo_cli.data.unchanged import read_unchanged
from convo_cli.errors import CheckpointError, ConfigError, DataError, FileChangedError, UsageError
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.loaded import LoadedCheckpoint
from convo_cli.runs.provenance.run_info import read_config
from convo_cli.runs.provenance.training_dialogues import read_training_dialogues


@dataclass(frozen=True, slots=True)
class Leak:
    """How many of the evaluated dialogues the model was trained on."""

    num_dialogues: int
    num_trained_on: int | None
    """None if it is not known."""
    reason: str = ""
    """Why it is not known."""


def find_leak(loaded: LoadedCheckpoint | None, fingerprints: NDArray[np.uint64]) -> Leak:
    """Compare the evaluated dialogues with those that the model's run was trained on."""
    num = len(fingerprints)
    if loaded is None:
        return Leak(num, None, "the model is not in a run directory")
    run = _run_of(loaded)
    try:
        known = read_training_dialogues(run)
    except CheckpointError as error:
        return Leak(num, None, error.message)
    if known is None:
        return Leak(num, None, f"its run has no {run.training_dialogues.name}")
    return Leak(num, known.count(fingerprints))


def facts_of_run(loaded: LoadedCheckpoint | None) -> TrainingFacts | None:
    """Read a model's training data for its facts; None if it was moved, deleted or changed."""
    if loaded is None:
        return None
    try:
        data = read_config(_run_of(loaded)).data
        trained_on = [
            file.model_copy(update={"path": path})
            for file, path in zip(loaded.info.train, data.train, strict=True)
        ]
        with read_unchanged(trained_on, data) as dialogues:
            return collect_facts(dialogues, OF_THE_RUN)
    except (CheckpointError, ConfigError, DataError, FileChangedError, UsageError, ValueError):
        return None  # moved, deleted or changed


def _run_of(loaded: LoadedCheckpoint) -> RunDirectory:
    return RunDirectory(loaded.path.resolve().parent.parent)
