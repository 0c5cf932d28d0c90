"""Facts of a run for the model card; what an older, moved or damaged run lacks is left out.

They come from run.json, the log, test.json and, while they are unchanged, from the data files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from convo_cli.config.schema import DATA_SETS, RunConfig
from convo_cli.data.checks.report import DataReport, FileReport
from convo_cli.data.checks.validate import validate_files
from convo_cli.errors import ConvoError
from convo_cli.export.source import Source
from convo_cli.report.reading.run_log import Evaluation, RunLog, read_log
from convo_cli.runs.checkpoints import SavedState, read_state
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.logs.evaluations import read_evaluations, weights_of
from convo_cli.runs.logs.final_scores import FinalScores, read_final_scores
from convo_cli.runs.provenance.data_files import DataFile, DataFiles, read_data_files
from convo_cli.runs.provenance.run_info import RunInfo, read_config
from convo_cli.runs.provenance.training_dialogues import read_training_dialogues

T = TypeVar("T")
MOST_DATA_BYTES = 2**28
"""Larger data files, all together, are not read again for the card: it would take a minute."""


@dataclass(frozen=True, slots=True)
class DataSet:
    """The files of training, validation or test data."""

    name: str
    """``train``, ``validation`` or ``test``."""
    files: tuple[DataFile, ...]
    reports: tuple[FileReport, ...]
    """One for each file; empty if a file of the run was moved, deleted or changed."""
    counts: Mapping[str, Any]
    """The counts of the last start's pre-flight; empty if the log lacks them."""


@dataclass(frozen=True, slots=True)
class Shared:
    """Dialogues of one data set that are also in an earlier one."""

    earlier: str
    later: str
    num_dialogues: int


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a run has about an exported checkpoint."""

    state: SavedState | None
    """The checkpoint's own state.json; an export has none."""
    info: RunInfo | None
    """None if the exported folder is no checkpoint in its run; then the rest is empty too."""
    data: tuple[DataSet, ...] = ()
    """The data sets that the run has."""
    shared: tuple[Shared, ...] | None = None
    """None if the data could not be compared."""
    num_different: int | None = None
    """Different dialogues that the run was trained on, after folding case and white space."""
    log: RunLog | None = None
    """Up to the step of the checkpoint."""
    evaluation: Evaluation | None = None
    """Of exactly these weights."""
    test: FinalScores | None = None
    """Of exactly these weights and of the run's test files."""

    @property
    def config(self) -> RunConfig | None:
        return None if self.info is None else self.info.config

    def data_set(self, name: str) -> DataSet | None:
        """Return the data set of that name, if the run has it."""
        return next((one for one in self.data if one.name == name), None)


def read_facts(source: Source) -> CardFacts:
    """Collect the facts of the exported checkpoint."""
    state = _tried(lambda: read_state(source.folder))
    if source.run is None or source.loaded is None:
        return CardFacts(state, None)
    run, info, step = source.run, source.loaded.info, source.loaded.own.step
    log = _tried(lambda: read_log(run.metrics))
    start = log.starts[-1] if log and log.starts else {}
    report = _tried(lambda: _read_data(run, info))
    known = _tried(lambda: read_training_dialogues(run))
    test = read_final_scores(run)
    weights = weights_of(source.folder)
    return CardFacts(
        state=state,
        info=info,
        data=tuple(_data_sets(info, start, report)),
        shared=None if report is None else tuple(_shared(info, report)),
        num_different=None if known is None or info.parent else len(known.hashes),
        log=None if log is None else log.up_to(step),
        evaluation=_tried(lambda: _evaluation(run, step, weights)),
        test=test if test is not None and test.is_of(weights, info.test) else None,
    )


def _tried(read: Callable[[], T]) -> T | None:
    try:
        return read()
    except (ConvoError, OSError, ValueError):
        return None


def _read_data(run: RunDirectory, info: RunInfo) -> DataReport | None:
    """Count what is in the data files; None if they are large, or not those of the run."""
    config = read_config(run)
    files = list(config.data.files)
    if sum(Path(file).stat().st_size for file in files) > MOST_DATA_BYTES:
        return None
    report = validate_files(files, config.data, train_on=config.dialogue.train_on)
    found = read_data_files(config.data)  # after they were read, so a later change shows
    if _hashes(found) != _hashes(DataFiles(info.train, info.validation, info.test)):
        return None
    return report


def _hashes(files: DataFiles) -> list[list[str]]:
    return [[file.sha256 for file in part] for part in files]


def _data_sets(info: RunInfo, start: Mapping[str, Any], report: DataReport | None) -> list[DataSet]:
    found, place = [], 0
    for name in DATA_SETS:
        files: tuple[DataFile, ...] = getattr(info, name)
        counts = start.get("training" if name == "train" else name)
        reports = () if report is None else report.files[place : place + len(files)]
        place += len(files)
        if files or isinstance(counts, Mapping):
            counts = counts if isinstance(counts, Mapping) else {}
            found.append(DataSet(name, files, reports, counts))
    return found


def _shared(info: RunInfo, report: DataReport) -> list[Shared]:
    """Add up the dialogues that two data sets share; the files of one set do not count."""
    sets = [name for name in DATA_SETS for _ in getattr(info, name)]
    place = {file.file: name for file, name in zip(report.files, sets, strict=True)}
    counts: dict[tuple[str, str], int] = {}
    for leak in report.leaks:
        pair = place[leak.earlier_file], place[leak.file]
        if pair[0] != pair[1]:
            counts[pair] = counts.get(pair, 0) + leak.num_dialogues
    return [Shared(earlier, later, num) for (earlier, later), num in counts.items()]


def _evaluation(run: RunDirectory, step: int, weights: str) -> Evaluation | None:
    found = read_evaluations(run).by_step.get(step)
    if found is None or found.weights != weights or not weights:
        return None
    return Evaluation(
        step=step,
        loss=found.loss,
        perplexity=found.perplexity,
        metrics=found.metrics,
        real_scores=found.real_scores,
        intervals=found.intervals,
        floors=found.floors,
        end_nll=found.end_nll,
        inner_nll=found.inner_nll,
        findings=tuple((one.kind, one.message) for one in found.findings),
        has_health=True,
        loss_by_file=found.loss_by_file,
    )
