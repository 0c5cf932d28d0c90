"""Scores of a finished run on its test data: those of the checkpoint that `convo chat` loads.

The run is saved before, so nothing is lost if scoring is stopped, killed or fails: a resume of the
finished run repeats it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from convo_cli.errors import StoppedError, typeable
from convo_cli.evaluation.cautions import cautions_about
from convo_cli.events import Emit, Notice, begin
from convo_cli.metrics.floor_scores import score_floors
from convo_cli.runs.checkpoints import read_state
from convo_cli.runs.directory import RunDirectory, remove_stop_file
from convo_cli.runs.logs.evaluations import weights_of
from convo_cli.runs.logs.final_scores import FinalScores, write_final_scores
from convo_cli.runs.opening import open_checkpoint
from convo_cli.runs.provenance.data_files import DataFile
from convo_cli.runs.provenance.run_info import read_run_info
from convo_cli.signals import StopRequest
from convo_cli.storage.snapshot import Snapshot
from convo_cli.training.job import RunJob
from convo_cli.training.run_parts import Parts
from convo_cli.training.saving import load_checkpoint_model
from convo_cli.training.sharding.fsdp import fill, plain_copy
from convo_cli.training.state import TrainState

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def score_test_data(
    run: RunDirectory,
    parts: Parts,
    state: TrainState,
    stop: StopRequest,
    emit: Emit,
    *,
    known: FinalScores | None = None,
) -> FinalScores | None:
    """Score the best checkpoint by loss, or else the last one, and write test.json.

    Every process of the world calls it; rank 0 chooses the checkpoint, writes and returns the
    scores. ``known`` scores are returned if they belong to this checkpoint and to these files. None
    without test data, or if the user's stop file asks for a stop. The state can no longer be
    trained: its gradients and moments are freed, and its model gets the weights of the checkpoint.
    StoppedError after a signal.
    """
    store, world = parts.data.test, parts.world
    if store is None:
        return None
    message = "stopped before the test data was scored; the run is finished and saved"
    resume = f"convo resume {typeable(run.path)}"
    with (
        _naming_what_is_missing(resume, emit),
        stop.interrupting(message, hint=f"{resume} scores it"),
    ):
        found = world.first_alone(lambda: _choose(run, known, emit))
        chosen = world.gather("" if found is None else found.files.path.name)[0]
        if not chosen:
            return known
        _free(state)
        begin("loading the checkpoint to test", emit)
        model = _load(run.checkpoints / chosen, parts)
        if found is not None:
            found.files.require_unchanged()
        step = read_state(run.checkpoints / chosen).progress.step
        scores = RunJob(run, parts, stop, emit).score(
            store, parts.test_reply_dialogues, step, stage="scoring the test data", model=model
        )
    if found is None:  # in a rank other than 0
        return None
    if scores is None:
        remove_stop_file(run)
        emit(Notice(f"{message}; {resume} scores it"))
        return None
    floors = score_floors(scores.samples, scores.metrics, parts.training_facts.replies)
    cautions = cautions_about(scores, (), ())
    leaks = (leak.message for leak in parts.data.leaks if leak.data_set == "test")
    return write_final_scores(
        run,
        FinalScores(
            checkpoint=f"{run.checkpoints.name}/{chosen}",
            step=step,
            weights=found.weights,
            data=found.data,
            loss=scores.loss,
            perplexity=scores.perplexity,
            num_targets=scores.num_targets,
            metrics=scores.metrics,
            intervals=scores.intervals,
            floors=floors.scores,
            floor_source=floors.source or None,
            floors_sentence=floors.sentence or None,
            num_replies=len(scores.samples),
            num_replies_with_several_references=sum(
                bool(sample.other_references) for sample in scores.samples
            ),
            num_split=scores.num_split,
            cautions=(*leaks, *cautions),
            seconds=scores.seconds,
        ),
    )


@dataclass(frozen=True)
class _Chosen:
    """The checkpoint to test, and the hashes that its scores belong to."""

    files: Snapshot
    weights: str
    data: tuple[DataFile, ...]


def _choose(run: RunDirectory, known: FinalScores | None, emit: Emit) -> _Chosen | None:
    """Return the checkpoint that `convo chat` loads; None if these are its known scores."""
    begin("choosing the checkpoint to test", emit)
    files, data = open_checkpoint(run.path, emit), read_run_info(run).test
    weights = weights_of(files.path)
    is_known = known is not None and known.is_of(weights, data)
    return None if is_known else _Chosen(files, weights, data)


def _load(checkpoint: Path, parts: Parts) -> PreTrainedModel:
    """Load the weights of a checkpoint into the run's model, or into the copy of a sharded one."""
    model, weights = plain_copy(parts.model), load_checkpoint_model(checkpoint).state_dict()
    if model is not parts.model:
        names = [name for name, _ in model.named_parameters()]
        fill(model, {name: weights[name].to(parts.device) for name in names})
    model.load_state_dict(weights)
    return model


@contextmanager
def _naming_what_is_missing(resume: str, emit: Emit) -> Iterator[None]:
    """Tell the user after an error that only the scores are missing."""
    try:
        yield
    except StoppedError:  # says so itself
        raise
    except Exception:
        message = "the run is finished and saved, but its test data was not scored"
        emit(Notice(f"{message}; {resume} scores it", is_warning=True))
        raise


def _free(state: TrainState) -> None:
    """Free the memory of gradients and moments, which no step needs any more."""
    state.optimizer.zero_grad(set_to_none=True)
    state.optimizer.state.clear()
