"""The names inside a run directory; everything is relative to it, so it can be moved.

runs/<name>/
  config.yaml  run.json  metrics.jsonl  samples.jsonl  plots/  tensorboard/
  checkpoints/step-00001200/
  last.json  best-loss.json  best-metric.json     for people and scripts; convo itself reads the checkpoints
  stop                                            made by the user: save and stop
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from convo_cli.errors import CheckpointError, DiskError, UsageError, typeable

_CHECKPOINT_NAME = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """Paths of one run."""

    path: Path

    @property
    def is_run(self) -> bool:
        """Whether `convo train` made it, as far as its names tell."""
        return self.config.is_file() and self.checkpoints.is_dir()

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def info(self) -> Path:
        return self.path / "run.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def samples(self) -> Path:
        return self.path / "samples.jsonl"

    @property
    def plots(self) -> Path:
        return self.path / "plots"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def lock(self) -> Path:
        return self.path / ".lock"

    @property
    def stop(self) -> Path:
        """A file that the user makes to have the run saved and stopped; who obeys it removes it."""
        return self.path / "stop"

    def checkpoint(self, step: int) -> Path:
        """Where the checkpoint after ``step`` updates lies."""
        return self.checkpoints / f"step-{step:08d}"

    def pointer(self, label: str) -> Path:
        """The small file that names a checkpoint: label is last, best-loss or best-metric."""
        return self.path / f"{label}.json"

    def checkpoint_steps(self) -> list[int]:
        """Steps of the published checkpoints, ascending; left-overs of a broken save are not among them."""
        if not self.checkpoints.is_dir():
            return []
        matches = (_CHECKPOINT_NAME.fullmatch(path.name) for path in self.checkpoints.iterdir() if path.is_dir())
        return sorted(int(match.group(1)) for match in matches if match)


def existing_run(path: Path) -> RunDirectory:
    """The run directory at this path; UsageError or CheckpointError where there is none."""
    run = RunDirectory(path)
    if not path.exists():
        raise UsageError(f"{path}: no such run directory", hint="give what `convo train` made, such as runs/convo")
    if not run.is_run:
        raise CheckpointError(
            f"{path}: not a run directory (it has no config.yaml and checkpoints/)",
            hint="give what `convo train` made, such as runs/convo",
        )
    return run


def require_new(run: RunDirectory) -> None:
    """Raise CheckpointError where the run directory is already in use, DiskError where it cannot be made."""
    if run.path.exists() and (not run.path.is_dir() or any(run.path.iterdir())):
        has_checkpoint = bool(run.checkpoint_steps())
        raise CheckpointError(
            f"{run.path}: already exists",
            hint=f"`convo resume {typeable(run.path)}` continues it; --set name=… starts another run"
            if has_checkpoint
            else "--set name=… starts another run",
        )
    require_place(run.path, hint="choose another place with --set output_dir=…")


def require_place(path: Path, *, hint: str) -> None:
    """Raise DiskError where a folder at this path could not be made, before work is done that would be lost."""
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        reason = "a folder that one may not write to" if above.is_dir() else "a file"
        raise DiskError(f"{path}: cannot be made, because {above} is {reason}", hint=hint)
