"""A bounded sample of the data that a run was trained and validated on, if it is unchanged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from convo_cli.config.schema import DataConfig
from convo_cli.data.dialogue import Dialogue, Turn
from convo_cli.data.held_out.validation_split import find_split, hash_opening
from convo_cli.data.unchanged import read_unchanged
from convo_cli.errors import CheckpointError, ConfigError, DataError, FileChangedError, UsageError
from convo_cli.export.proof.probe_dialogues import MissingScripts
from convo_cli.export.source import Source
from convo_cli.runs.provenance.data_files import DataFile
from convo_cli.runs.provenance.run_info import read_config

MAX_TEXTS = 1000
MAX_TEXT_CHARACTERS = 1000
"""Longer texts are cut."""
_MAX_DIALOGUES = 50_000
"""Dialogues of each training file that are read for the sample."""
_MAX_VALIDATION = 200
"""Dialogues that are read for validation targets."""
_NO_RUN = "the checkpoint is not in a run directory"
_CHANGED = "{} was moved, deleted or changed"
_UNREADABLE = (
    CheckpointError, ConfigError, DataError, FileChangedError, UsageError, OSError, ValueError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunData:
    """Texts and dialogues of a run's data."""

    training_texts: Sequence[str] = ()
    dialogues: Sequence[Sequence[Turn]] = ()
    """Beginnings of dialogues in scripts that convo's own dialogues lack."""
    validation: Sequence[Dialogue] = ()
    absent: dict[str, str] = field(default_factory=dict)
    """Why a part was not read, by the name of its field in a receipt."""


def read_run_data(source: Source) -> RunData:
    """Read the data of the checkpoint's run; data that is gone or changed is named as absent."""
    loaded, run, absent = source.loaded, source.run, dict[str, str]()
    if loaded is None or run is None:
        return RunData(absent={"training_texts": _NO_RUN, "perplexity": _NO_RUN})
    texts, scripts, split = _Sample(), MissingScripts(), list[Dialogue]()
    try:
        data = read_config(run).data
        trained_on = _at(loaded.info.train, data.train)
        for number, file in enumerate(trained_on, 1):
            for dialogue in _dialogues(file, data):
                texts.add(dialogue.turns, MAX_TEXTS * number // len(trained_on))
                scripts.add(dialogue.turns)
                if data.validation_split is not None and len(split) < _MAX_DIALOGUES // 10:
                    split.append(dialogue)
            texts.close()
    except _UNREADABLE:
        texts, scripts, split = _Sample(), MissingScripts(), []
        absent["training_texts"] = _CHANGED.format("the training data")
    validation = list[Dialogue]()
    try:
        data = read_config(run).data
        if data.validation_split is not None and "training_texts" in absent:
            absent["perplexity"] = _CHANGED.format("the training data, which holds it,")
        for file in _at(loaded.info.validation, data.validation):
            validation += _dialogues(file, data, _MAX_VALIDATION)
        if data.validation_split is not None and split:
            held = find_split((hash_opening(one.turns) for one in split), data.validation_split)
            validation += [one for one in split if held.is_held_back(hash_opening(one.turns))]
    except _UNREADABLE:
        validation = []
        absent["perplexity"] = _CHANGED.format("the validation data")
    if not validation and "perplexity" not in absent:
        absent["perplexity"] = "the run has no validation data"
    return RunData(texts.texts, scripts.found, validation[:_MAX_VALIDATION], absent)


class _Sample:
    """Different texts, spread evenly over those of the file that is read."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._own: dict[str, None] = {}
        self._stride, self._num_seen, self._most = 1, 0, MAX_TEXTS

    def add(self, turns: Sequence[Turn], most: int) -> None:
        """Add the texts of a dialogue; ``most`` is the number of all texts after its file."""
        self._most = most - len(self.texts)
        for turn in turns:
            self._num_seen += 1
            if self._num_seen % self._stride == 0 and turn.text:
                self._own.setdefault(turn.text[:MAX_TEXT_CHARACTERS])
                if len(self._own) > 2 * self._most:
                    self._own = dict.fromkeys(list(self._own)[::2])
                    self._stride *= 2

    def close(self) -> None:
        """End a file."""
        step = max(1, -(-len(self._own) // max(1, self._most)))
        self.texts += list(self._own)[::step]
        self._own, self._stride, self._num_seen = {}, 1, 0


def _at(files: Sequence[DataFile], paths: Sequence[str]) -> list[DataFile]:
    """Return files with their hashes, at the places of the config."""
    return [file.model_copy(update={"path": path}) for file, path in zip(files, paths, strict=True)]


def _dialogues(file: DataFile, data: DataConfig, most: int = _MAX_DIALOGUES) -> Iterator[Dialogue]:
    """Yield the first dialogues of a file; an error at the end if it is not the run's file."""
    with read_unchanged([file], data) as dialogues:
        yield from islice(dialogues, most)
