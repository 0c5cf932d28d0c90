"""A loaded checkpoint compared with its run: its own scores, the last checkpoint, the best ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from convo_cli.errors import CheckpointError, DiskError
from convo_cli.runs.checkpoints import list_checkpoints, read_state
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.logs.evaluations import Evaluations, read_evaluations
from convo_cli.runs.provenance.run_info import RunInfo, read_run_info
from convo_cli.runs.selection import Which, best_checkpoint, evaluation_of_weights

_NAMES: Mapping[Which, str] = {
    "last": "last checkpoint",
    "loss": "best by loss",
    "metric": "best by metric",
}


@dataclass(frozen=True, slots=True)
class ScoredStep:
    """The step of a checkpoint, and its validation scores; None for those that it lacks."""

    step: int
    loss: float | None = None
    metric: float | None = None
    """Score of the run's ``evaluation.metric``."""


@dataclass(frozen=True, slots=True)
class LoadedCheckpoint:
    """A checkpoint of a run, with scores from the run's log that belong to its weights."""

    path: Path
    info: RunInfo
    own: ScoredStep
    selected_by: Mapping[Which, ScoredStep]
    """The checkpoints that ``--load`` selects; a best one is missing if it is not certain."""

    @property
    def title(self) -> str:
        """Return its step, and what it is in its run."""
        names = [_NAMES[which] for which in self._options()]
        return f"step {self.own.step}" + (f" ({', '.join(names)})" if names else "")

    def describe(self, *, is_selected: bool) -> str:
        """Return a sentence for the user: what was loaded, the last checkpoint, better ones.

        If the user named the run and the checkpoint was selected, the options that select the
        others are included.
        """
        parts = [f"loaded {self.path}: {self.title}, {self._scores(self.own)}"]
        others: dict[int, list[Which]] = {}
        for which, other in self.selected_by.items():
            is_better = which == "last" or getattr(other, which) != getattr(self.own, which)
            if other.step != self.own.step and is_better:
                others.setdefault(other.step, []).append(which)
        for options in others.values():
            other, names = self.selected_by[options[0]], ", ".join(_NAMES[one] for one in options)
            option = f" (--load {options[0]})" if is_selected else ""
            parts.append(f"{names}{option}: step {other.step}, {self._scores(other)}")
        return "; ".join(parts)

    def _options(self) -> list[Which]:
        """Return the values of ``--load`` that select this checkpoint."""
        return [which for which, one in self.selected_by.items() if one.step == self.own.step]

    def _scores(self, one: ScoredStep) -> str:
        if one.loss is None:
            return "no validation loss"
        loss, name = f"validation loss {one.loss:.3f}", self.info.config.evaluation.metric
        return loss if one.metric is None else f"{loss}, {name} {one.metric:.3g}"

    def as_record(self) -> dict[str, Any]:
        """Return the checkpoint for `--json`."""
        return {
            "path": str(self.path),
            **asdict(self.own),
            "selected_by": self._options(),
            "last": asdict(self.selected_by["last"]),
        }


def find_loaded(folder: Path) -> LoadedCheckpoint | None:
    """Return the checkpoint in a folder; None for another folder or an unreadable run."""
    real = folder.resolve()
    run = RunDirectory(real.parent.parent)
    try:
        info, state = read_run_info(run), read_state(real)
    except (CheckpointError, DiskError):
        return None
    if real.parent.name != run.checkpoints.name or state.run_id != info.run_id:
        return None
    metric = info.config.evaluation.metric
    try:
        known = read_evaluations(run)
    except DiskError:
        known = Evaluations({}, ())
    scored = {state.progress.step: ScoredStep(state.progress.step)}
    for checkpoint in list_checkpoints(run):
        step = checkpoint.progress.step
        evaluation = evaluation_of_weights(checkpoint, known.by_step)
        scored[step] = (
            ScoredStep(step)
            if evaluation is None
            else ScoredStep(step, evaluation.loss, evaluation.metrics.get(metric))
        )
    selected_by: dict[Which, ScoredStep] = {"last": scored[max(scored)]}
    for which in ("loss", "metric"):
        try:
            best = best_checkpoint(run, sorted(scored), which, metric, known)
            selected_by[which] = scored[best.progress.step]
        except CheckpointError:
            continue
    return LoadedCheckpoint(folder, info, scored[state.progress.step], selected_by)
