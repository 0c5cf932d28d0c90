"""The runs, checkpoints and models of a comparison, and the content of their files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from convo_cli.errors import CheckpointError, ConvoError, UsageError
from convo_cli.report.reading.gathering import Gathered, gather
from convo_cli.report.reading.reply_history import Sample, replies_at
from convo_cli.report.reading.run_log import Evaluation
from convo_cli.runs.checkpoints import read_state
from convo_cli.runs.directory import RunDirectory, require_trusted_path
from convo_cli.runs.model_folder import DIALOGUE_FILE
from convo_cli.storage.files import read_file
from convo_cli.storage.foreign_files import MAX_TEXT_BYTES
from convo_cli.storage.similar import similar_path

MAX_MEMBERS = 8
"""More lines in one chart could not be told apart."""


@dataclass(frozen=True, slots=True)
class Member:
    """One side of a comparison."""

    letter: str
    """Its short name in charts and tables: A, B and so on."""
    source: str
    """The user's name for it."""
    kind: Literal["run", "checkpoint", "model"]
    run: Gathered | None
    """The run that it is or belongs to; None for a model without a run."""
    step: int | None
    """The step of the scores shown: its own for a checkpoint, that of the best one for a run."""
    contract: Mapping[str, Any]
    """dialogue.json; empty if it cannot be read."""
    missing: tuple[str, ...]
    """Names of the parts that it lacks, such as "no evaluation"."""

    @property
    def evaluation(self) -> Evaluation | None:
        """Return the evaluation at ``step``; None if the log has none."""
        if self.run is None or self.step is None:
            return None
        return self.run.log.evaluations.get(self.step)

    @property
    def num_parameters(self) -> int | None:
        starts = self.run.log.starts if self.run else ()
        number = starts[-1].get("num_parameters") if starts else None
        return number if isinstance(number, int) else None

    @property
    def loss(self) -> float | None:
        """The validation loss at `step`."""
        return None if self.evaluation is None else self.evaluation.loss

    def replies(self) -> list[Sample]:
        """Return the replies at `step`, or at the last evaluation with replies before it."""
        return [] if self.run is None else replies_at(self.run.run.samples, self.step)


def open_members(sources: Sequence[str]) -> list[Member]:
    """Read every run, checkpoint and model.

    UsageError if there are too many, if one is given twice or if a path is no folder;
    CheckpointError for a folder that is none of the three.
    """
    if len(sources) > MAX_MEMBERS:
        raise UsageError(
            f"{len(sources)} runs and models, but at most {MAX_MEMBERS} can be compared",
            hint="compare fewer at once",
        )
    for index, source in enumerate(sources):
        for earlier in sources[:index]:
            if Path(source).resolve() == Path(earlier).resolve():
                raise UsageError(f"{source}: given twice", hint="give different runs or models")
    return [_open(source, chr(ord("A") + index)) for index, source in enumerate(sources)]


def _open(source: str, letter: str) -> Member:
    path = Path(source)
    require_trusted_path(path)
    if not source or not path.is_dir():
        what = "not a directory" if source and path.exists() else "no such file or directory"
        meant = similar_path(path) if source and not path.exists() else None
        hint = "give a run directory, such as runs/demo, or a model folder"
        raise UsageError(
            f"{source or repr(source)}: {what}", hint=f"did you mean {meant}?" if meant else hint
        )
    around = RunDirectory(path.resolve().parent.parent)
    if RunDirectory(path).is_run:
        run = gather(RunDirectory(path))
        evaluations = run.log.evaluations
        step = run.best_step if run.best_step in evaluations else max(evaluations, default=None)
        member = Member(letter, source, "run", run, step, _contract(run.run.dialogue), ())
    elif path.resolve().parent.name == "checkpoints" and around.is_run:
        own = read_state(path).progress.step
        run = gather(around)
        run = replace(run, log=run.log.up_to(own), test=None, is_running=False)
        member = Member(letter, source, "checkpoint", run, own, _contract(path / DIALOGUE_FILE), ())
    elif os.path.lexists(path / "config.json"):
        contract = _contract(path / DIALOGUE_FILE)
        return Member(letter, source, "model", None, None, contract, ("no log of a run",))
    else:
        raise CheckpointError(
            f"{source}: neither a run directory nor a model (it has no config.yaml and "
            "checkpoints/, and no config.json)",
            hint="give a run directory, such as runs/demo, a checkpoint or an export",
        )
    return replace(member, missing=_missing(member))


def _missing(member: Member) -> tuple[str, ...]:
    missing = [] if member.evaluation else ["no evaluation"]
    if member.evaluation and not member.evaluation.metrics:
        missing.append("no scores of replies")
    if member.run and not member.run.log.steps:
        missing.append("no steps")
    return tuple(missing)


def _contract(file: Path) -> Mapping[str, Any]:
    try:
        values = json.loads(read_file(file, MAX_TEXT_BYTES))
    except (OSError, ValueError, RecursionError, ConvoError):
        return {}
    return values if isinstance(values, dict) else {}
