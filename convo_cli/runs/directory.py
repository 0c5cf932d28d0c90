"""Names inside a run directory, all relative to it, so that it can be moved.

runs/<name>/
  config.yaml  run.json  metrics.jsonl  samples.jsonl  test.json  training-dialogues.hashes
  report.html  plots/  tensorboard/
  checkpoints/step-00001200/
  stop                                            created by the user: save and stop

For people and other programs; convo itself reads the checkpoints:
  dialogue.json  tokenizer/  last.json  best-loss.json  best-metric.json
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from convo_cli.errors import CheckpointError, DiskError, UsageError, typeable
from convo_cli.storage.access import link_of_another_user
from convo_cli.storage.atomic import disk_errors
from convo_cli.storage.files import (
    UnsafeFileError,
    is_directory,
    is_regular,
    require_regular,
    special_kind_at,
)
from convo_cli.storage.folder import open_folder

LABELS = ("last", "best-loss", "best-metric")
"""Names of the pointers: small files that name a checkpoint."""
PLOTS = ("learning_rate.png", "loss.png")
_CHECKPOINT_NAME = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """Paths of one run."""

    path: Path

    @property
    def is_run(self) -> bool:
        """Return whether this looks like a run directory of `convo train`, by the names in it.

        Either of the two descriptions is enough, so that an error can name the missing one.
        """
        return os.path.lexists(self.checkpoints) and any(map(os.path.lexists, self._descriptions))

    @property
    def _descriptions(self) -> tuple[Path, Path]:
        return self.config, self.info

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def info(self) -> Path:
        return self.path / "run.json"

    @property
    def dialogue(self) -> Path:
        return self.path / "dialogue.json"

    @property
    def tokenizer(self) -> Path:
        return self.path / "tokenizer"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def samples(self) -> Path:
        return self.path / "samples.jsonl"

    @property
    def test(self) -> Path:
        return self.path / "test.json"

    @property
    def training_dialogues(self) -> Path:
        return self.path / "training-dialogues.hashes"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

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
        """A file that the user creates to save and stop the run; convo then removes it."""
        return self.path / "stop"

    @property
    def is_stop_requested(self) -> bool:
        return is_regular(self.stop)

    def checkpoint(self, step: int) -> Path:
        """Return the path of the checkpoint after ``step`` updates."""
        return self.checkpoints / f"step-{step:08d}"

    def pointer(self, label: str) -> Path:
        """Return the path of a pointer; the label is last, best-loss or best-metric."""
        return self.path / f"{label}.json"

    def checkpoint_steps(self) -> list[int]:
        """Return the steps of the published checkpoints, ascending."""
        if not is_directory(self.checkpoints):
            return []
        matches = (
            _CHECKPOINT_NAME.fullmatch(path.name)
            for path in self.checkpoints.iterdir()
            if is_directory(path)
        )
        return sorted(int(match.group(1)) for match in matches if match)


def existing_run(path: Path) -> RunDirectory:
    """Return the run directory at this path; UsageError or CheckpointError if there is none."""
    run = RunDirectory(path)
    require_trusted_path(path)
    if not path.exists():
        raise UsageError(
            f"{path}: no such run directory",
            hint="give a run directory of `convo train`, such as runs/demo",
        )
    if not run.is_run:
        raise CheckpointError(
            f"{path}: not a run directory (it has no config.yaml and checkpoints/)",
            hint="give a run directory of `convo train`, such as runs/demo",
        )
    return run


def remove_stop_file(run: RunDirectory) -> None:
    """Delete the file with which the user asked for a stop, if it exists."""
    with disk_errors(run.stop), open_folder(run.path) as inside:
        inside.delete(run.stop.name)


def how_to_continue(run: RunDirectory) -> str:
    """Return the hint after a run broke off."""
    return f"convo resume {typeable(run.path)}" if run.is_run else "run the command again"


def require_trusted_path(path: Path) -> None:
    """Raise DiskError if a link that another user may have planted leads to this path."""
    if (link := link_of_another_user(path)) is not None:
        raise DiskError(
            f"{link}: a symbolic link of another user, in a folder that others can write to",
            hint="give the path of the real folder, or remove the link",
        )


def require_own_files(run: RunDirectory) -> None:
    """Raise CheckpointError if a folder of the run is a link, DiskError if a file is not regular.

    To be called before any work; each file is checked again when it is opened.
    """
    require_own_checkpoints(run)
    for folder in (run.plots, run.tensorboard, run.tokenizer):
        _require_own_folder(folder)
    files = (
        run.dialogue,
        run.metrics,
        run.samples,
        run.test,
        run.training_dialogues,
        run.report,
        run.stop,
        *(run.plots / name for name in PLOTS),
    )
    for file in (*files, *(run.pointer(label) for label in LABELS)):
        try:
            require_regular(file)
        except UnsafeFileError as error:
            raise DiskError(f"{file}: {error.strerror}", hint=error.hint) from error


def require_own_checkpoints(run: RunDirectory) -> None:
    """Raise CheckpointError if checkpoints/ or a checkpoint in it is a link."""
    _require_own_folder(run.checkpoints)
    if is_directory(run.checkpoints):
        for path in sorted(run.checkpoints.iterdir()):
            if _CHECKPOINT_NAME.fullmatch(path.name) and path.is_symlink():
                _require_own_folder(path)


def _require_own_folder(folder: Path) -> None:
    """Raise CheckpointError if this exists and is not a folder, or is a link to one."""
    if os.path.lexists(folder) and not is_directory(folder):
        kind = special_kind_at(folder) or "a file"
        raise CheckpointError(
            f"{folder}: {kind}, but convo opens only real folders inside a run directory",
            hint="replace it with the real folder; only the run directory itself may be a link",
        )


def require_new(run: RunDirectory) -> None:
    """Raise CheckpointError if the run directory is in use, DiskError if it cannot be created."""
    if run.path.exists() and (not run.path.is_dir() or any(run.path.iterdir())):
        hint = "--set name=… starts another run"
        if run.checkpoint_steps():
            hint = f"`convo resume {typeable(run.path)}` continues it; {hint}"
        raise CheckpointError(f"{run.path}: already exists", hint=hint)
    if run.path.is_symlink():
        raise CheckpointError(
            f"{run.path}: a symbolic link, so no run can be created there",
            hint="remove the link, or start another run with --set name=…",
        )
    require_place(run.path, hint="choose another folder with --set output_dir=…")


def require_place(path: Path, *, hint: str) -> None:
    """Raise DiskError if no folder can be created at this path or another user's link leads to it.

    To be called before any work that would be lost.
    """
    require_trusted_path(path)
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir():
        raise DiskError(f"{path}: cannot be created, because {above} is a file", hint=hint)
    if not os.access(above, os.W_OK | os.X_OK):
        message = f"{path}: cannot be created, because you need write permission in {above}"
        raise DiskError(message, hint=hint)
