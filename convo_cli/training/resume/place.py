"""Place where a resumed run continues: its own directory, or that of a fork."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from convo_cli.events import Emit, Notice
from convo_cli.runs.begin import begun
from convo_cli.runs.directory import RunDirectory, remove_stop_file
from convo_cli.runs.fork import fill_fork
from convo_cli.runs.provenance.run_info import Parent, new_run_id, write_provenance
from convo_cli.runs.provenance.training_dialogues import record_training_dialogues
from convo_cli.runs.tokenizer_folder import copy_tokenizer
from convo_cli.storage.atomic import remove_directory
from convo_cli.training.resume.point import ResumePoint


def rewind(run: RunDirectory, point: ResumePoint, emit: Emit) -> None:
    """Delete later checkpoints, and write config.yaml and run.json of the resumed run."""
    if point.found.later:
        names = ", ".join(run.checkpoint(step).name for step in point.found.later)
        message = f"discarded after step {point.found.step}: {names} and their log lines"
        emit(Notice(message, is_warning=True))
    for step in point.found.later:
        remove_directory(run.checkpoint(step), below=run.path)
    write_provenance(run, point.info)
    record_training_dialogues(run, point.parts.data.train.kept_fingerprints, run, emit)
    if copy_tokenizer(run, point.found.path):
        source = point.found.path.name
        emit(Notice(f"{run.tokenizer} and {run.dialogue.name} were restored from {source}"))
    if run.is_stop_requested:
        emit(Notice(f"{run.stop}: removed; it was left over from an earlier stop"))
        remove_stop_file(run)


@contextmanager
def forked(
    parent: RunDirectory, fork: RunDirectory, point: ResumePoint, emit: Emit
) -> Iterator[None]:
    """Create the fork, whole or not at all, and hold its lock inside the block."""
    old = point.info
    origin = Parent(run_id=old.run_id, name=parent.path.resolve().name, step=point.found.step)
    info = old.model_copy(update={"run_id": new_run_id(), "parent": origin})
    point.state.run_id = info.run_id

    def fill(aside: RunDirectory) -> None:
        fill_fork(
            aside,
            parent,
            point.found,
            info,
            is_evaluated=point.state.is_evaluated,
            evaluations=point.evaluations,
        )
        record_training_dialogues(aside, point.parts.data.train.kept_fingerprints, parent, emit)

    with begun(fork, fill):
        yield
