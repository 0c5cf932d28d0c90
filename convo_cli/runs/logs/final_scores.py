"""test.json of a run: the scores of a checkpoint of the finished run on the test data."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.provenance.data_files import DataFile
from convo_cli.storage.atomic import write_file
from convo_cli.storage.files import read_file
from convo_cli.unseen import escape_unseen

_ADDED = {
    "intervals",
    "floors",
    "floor_source",
    "floors_sentence",
    "num_replies_with_several_references",
}
"""Fields that earlier versions did not write; they are no part of the checksums of those."""


class FinalScores(BaseModel):
    """The content of test.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    checkpoint: str
    """Path of the scored checkpoint, relative to the run directory."""
    step: int
    weights: str
    """Hash of the scored weights (`convo_cli.runs.logs.evaluations.weights_of`)."""
    data: tuple[DataFile, ...]
    """The test files, with paths relative to the run directory."""
    loss: float
    perplexity: float
    num_targets: int
    metrics: Mapping[str, float]
    """Scores of the replies."""
    intervals: Mapping[str, tuple[float, float]] = {}
    """Bounds of the 95 % interval of each metric that has one."""
    floors: Mapping[str, Mapping[str, float]] = {}
    """Scores of trivial replies to the same turns, by floor and metric."""
    floor_source: str | None = None
    """Source of the floors' replies; None without any."""
    floors_sentence: str | None = None
    """Names the scores that are no better than a floor; None without replies."""
    num_replies: int
    num_replies_with_several_references: int = 0
    num_split: int
    """Dialogues with a turn too long for any window, scored in consecutive windows."""
    cautions: tuple[str, ...]
    """Reasons why the scores may mislead."""
    seconds: float
    checksum: str = ""
    """Checksum of all other fields."""

    def is_of(self, weights: str, data: Sequence[DataFile]) -> bool:
        """Return whether these weights were scored on files of this content."""
        hashes = [file.sha256 for file in data]
        return self.weights == weights != "" and [file.sha256 for file in self.data] == hashes

    def content_hash(self) -> str:
        """Return the checksum that the other fields must have."""
        without = {"checksum", *(_ADDED - self.model_fields_set)}
        return hashlib.sha256(self.model_dump_json(exclude=without).encode()).hexdigest()


def write_final_scores(run: RunDirectory, scores: FinalScores) -> FinalScores:
    """Write test.json; return the scores with their checksum."""
    whole = scores.model_copy(update=dict(scores))  # a default is written, too, so it counts as set
    sealed = whole.model_copy(update={"checksum": whole.content_hash()})
    write_file(run.test, escape_unseen(sealed.model_dump_json(indent=2)) + "\n")
    return sealed


def read_final_scores(run: RunDirectory) -> FinalScores | None:
    """Read test.json; None if it is missing or not as convo wrote it."""
    try:
        scores = FinalScores.model_validate_json(read_file(run.test))
    except (OSError, ValidationError):
        return None
    return scores if scores.checksum == scores.content_hash() else None
