"""Content of a run directory for the report page, without tensors.

A page about a damaged run is still useful, so a file that cannot be read becomes a problem that the
page names. Links and special files in the directory are refused, as by every other command.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

from convo_cli.config.schema import RunConfig
from convo_cli.errors import CheckpointError, ConvoError
from convo_cli.report.reading.run_log import RunLog, read_log
from convo_cli.runs.checkpoints import list_checkpoints
from convo_cli.runs.directory import RunDirectory, require_own_files
from convo_cli.runs.lock import is_in_use
from convo_cli.runs.logs.evaluations import Evaluations, read_evaluations
from convo_cli.runs.logs.final_scores import FinalScores, read_final_scores
from convo_cli.runs.provenance.run_info import RunInfo, read_config, read_run_info
from convo_cli.runs.selection import best_checkpoint, evaluation_of_weights
from convo_cli.storage.sealed import has_all_files, read_manifest

State = Literal["running", "finished", "stopped", "ended early"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Saved:
    """One checkpoint of the run."""

    step: int
    num_bytes: int
    loss: float | None
    metric: float | None
    """Score of the run's ``evaluation.metric``."""
    kinds: tuple[str, ...]
    """``last``, ``best by loss``, ``best by metric``."""
    is_whole: bool
    """False if one of its files is missing or has another size."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """A run as its files describe it; what cannot be read is None or empty."""

    run: RunDirectory
    name: str
    info: RunInfo | None
    config: RunConfig | None
    log: RunLog
    saved: tuple[Saved, ...]
    test: FinalScores | None
    is_running: bool
    problems: tuple[str, ...]
    """A sentence for each file that is damaged or missing."""

    @property
    def state(self) -> State:
        """Return the state; ``ended early`` if the log has no end and no process is running."""
        if self.is_running:
            return "running"
        if self.log.finished is None:
            return "ended early"
        is_stopped = str(self.log.finished.get("reason")).startswith("stopped")
        return "stopped" if is_stopped else "finished"

    @property
    def max_steps(self) -> int | None:
        """Return the planned steps of the run, from run.json, else from the log."""
        if self.info is not None:
            return self.info.max_steps
        planned = self.log.starts[-1].get("max_steps") if self.log.starts else None
        return planned if isinstance(planned, int) else None

    @property
    def metric(self) -> str:
        """The metric that chooses the best checkpoint besides the loss; empty if not known."""
        return "" if self.config is None else self.config.evaluation.metric

    def saved_as(self, kind: str) -> Saved | None:
        """Return the checkpoint that is ``last``, ``best by loss`` or ``best by metric``."""
        return next((one for one in self.saved if kind in one.kinds), None)

    @property
    def best_step(self) -> int | None:
        """Return the step of the best checkpoint by loss, else of the lowest loss in the log."""
        if (saved := self.saved_as("best by loss")) is not None:
            return saved.step
        losses = [(one.loss, one.step) for one in self.log.evaluations.values() if one.loss]
        return min(losses)[1] if losses else None


def gather(run: RunDirectory, *, is_running: bool | None = None) -> Gathered:
    """Read a run directory; ``is_running`` None asks the lock file.

    CheckpointError or DiskError for a link or a special file in the directory.
    """
    require_own_files(run)
    problems: list[str] = []
    info = _tried(lambda: read_run_info(run), problems)
    config = info.config if info is not None else _tried(lambda: read_config(run), problems)
    if info is not None and not os.path.lexists(run.config):
        problems.append(f"{run.config.name} is missing; the config shown is from the last start")
    if info is not None and not info.is_intact:
        problems.append(f"{run.info.name} was changed after convo wrote it")
    log = read_log(run.metrics)
    if not run.metrics.exists():
        problems.append(f"{run.metrics.name} is missing, so there are no curves and scores")
    elif not log.starts and not log.num_damaged:
        problems.append(f"{run.metrics.name} is empty, so there are no curves and scores")
    if log.num_damaged:
        first = ", ".join(map(str, log.damaged[:5]))
        more = ", …" if log.num_damaged > 5 else ""
        problems.append(
            f"{run.metrics.name} has unreadable lines, which are skipped: {first}{more}"
        )
    test = read_final_scores(run)
    if test is None and os.path.lexists(run.test):
        problems.append(f"{run.test.name} cannot be read or was changed after convo wrote it")
    metric = "" if config is None else config.evaluation.metric
    known = _tried(lambda: read_evaluations(run), problems) or Evaluations({}, ())
    if known.damaged and not log.num_damaged:
        problems.append(
            f"{run.metrics.name} has evaluations that were changed after convo wrote them"
        )
    saved = _saved(run, metric, known, problems)
    return Gathered(
        run=run,
        name=run.path.resolve().name,
        info=info,
        config=config,
        log=log,
        saved=saved,
        test=test,
        is_running=is_in_use(run) if is_running is None else is_running,
        problems=tuple(problems),
    )


def _tried(read: Callable[[], T], problems: list[str]) -> T | None:
    try:
        return read()
    except ConvoError as error:
        problems.append(error.message)
        return None


def _saved(
    run: RunDirectory, metric: str, known: Evaluations, problems: list[str]
) -> tuple[Saved, ...]:
    checkpoints = list_checkpoints(run)
    steps = [one.progress.step for one in checkpoints]
    kinds: dict[int, list[str]] = {step: [] for step in steps}
    if steps:
        kinds[steps[-1]].append("last")
    else:
        problems.append("no checkpoint can be read")
    for which in ("loss", "metric"):
        try:
            best = best_checkpoint(run, steps, which, metric, known)
            kinds[best.progress.step].append(f"best by {which}")
        except CheckpointError:
            continue
    found = []
    for one in checkpoints:
        scores = evaluation_of_weights(one, known.by_step)
        try:
            num_bytes = sum(size for size, _ in read_manifest(one.path).values())
            is_whole = has_all_files(one.path)
        except CheckpointError:
            num_bytes, is_whole = 0, False
        found.append(
            Saved(
                step=one.progress.step,
                num_bytes=num_bytes,
                loss=None if scores is None else scores.loss,
                metric=None if scores is None else scores.metrics.get(metric),
                kinds=tuple(kinds[one.progress.step]),
                is_whole=is_whole,
            )
        )
    return tuple(found)
