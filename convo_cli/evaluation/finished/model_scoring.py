"""Scores of a finished model on data files: likelihood, replies, floors, health, leak.

`convo evaluate` calls `score_model` for each model, and `compare` for two of them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace

from convo_cli.config.schema import DataConfig
from convo_cli.errors import FileChangedError, ModelError
from convo_cli.evaluation.finished.answers import answer_turns
from convo_cli.evaluation.finished.evaluated_files import EvaluatedFiles, open_files
from convo_cli.evaluation.finished.file_likelihood import (
    OF_ANY_TOKENIZER,
    Likelihood,
    choose_batching,
    measure_likelihood,
    paired_likelihood_intervals,
)
from convo_cli.evaluation.finished.model_health import findings_of_model
from convo_cli.evaluation.finished.run_origin import Leak, facts_of_run, find_leak
from convo_cli.events import Emit, EvaluationDone, SampleReply
from convo_cli.metrics.floor_scores import FloorScores, score_floors
from convo_cli.metrics.intervals import intervals_of, paired_intervals
from convo_cli.metrics.reply_scores import measure, score_real_replies, scores_of
from convo_cli.model.batches.batching import Batching
from convo_cli.model.decoding.generator import Generator
from convo_cli.runs.provenance.data_files import DataFile
from convo_cli.runs.provenance.same_values import require_same_values
from convo_cli.text.contract import contract_of
from convo_cli.world import World

Intervals = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class ModelScores:
    """All scores of one model on the files."""

    result: EvaluationDone
    """The scores that an evaluation during training has too; ``samples`` are the replies."""
    likelihood: Likelihood
    likelihood_intervals: Intervals
    replies: Mapping[int, SampleReply]
    """Replies by number of the turn; the other turns do not fit into the model's window."""
    floors: FloorScores
    leak: Leak
    files: tuple[DataFile, ...]
    tokenizer: str
    """Hash of everything that determines token ids."""


def score_model(
    generator: Generator,
    data: DataConfig,
    *,
    num_replies: int,
    max_new_tokens: int,
    emit: Emit,
    world: World | None = None,
) -> ModelScores:
    """Score a finished model in fp32 on the files of ``data.train``.

    The first ``num_replies`` assistant turns get a greedy reply. Every process of the world calls
    it with the same model and does a part of the work. All return the same scores, except that only
    rank 0 reads the training data for the floors. DataError if there is nothing to score,
    EvaluationDivergedError for a loss that is not finite; an error in one process is raised in all.
    """
    started, world = time.perf_counter(), world or World()
    has_floors = num_replies > 0 and world.is_first
    facts = facts_of_run(generator.loaded) if has_floors else None
    reading = open_files(
        data,
        generator.encoder,
        num_questions=num_replies,
        collects_replies=has_floors and (facts is None or facts.replies is None),
        emit=emit,
    )
    with ExitStack() as opened:
        files = world.agreed(lambda: opened.enter_context(reading))
        batching = world.agreed(lambda: choose_batching(generator, files.store, emit))
        _require_same_work(world, files, batching)
        likelihood = measure_likelihood(generator, batching, files, emit, world)
        leak = find_leak(generator.loaded, files.store.dialogues["fingerprint"])
        replies = answer_turns(generator, files.dialogues, max_new_tokens, emit, world)
        samples = list(replies.values())
        measured = measure(samples)
        metrics = scores_of(measured)
        training = facts.replies if facts and facts.replies else files.replies
        floors = score_floors(samples, metrics, training)
        result = EvaluationDone(
            step=0,
            loss=likelihood.assistant.loss,
            perplexity=likelihood.assistant.perplexity,
            num_targets=likelihood.assistant.num_targets,
            seconds=0.0,
            metrics=metrics,
            real_scores=score_real_replies(samples),
            samples=tuple(samples),
            num_split=files.store.num_split,
            intervals=intervals_of(measured),
            floors=floors.scores,
            end_nll=likelihood.end_nll,
            inner_nll=likelihood.inner_nll,
        )
        findings = findings_of_model(generator, batching, files, result, facts)
        return ModelScores(
            result=replace(result, findings=findings, seconds=time.perf_counter() - started),
            likelihood=likelihood,
            likelihood_intervals=likelihood.intervals(),
            replies=replies,
            floors=floors,
            leak=leak,
            files=files.files,
            tokenizer=contract_of(generator.encoder).tokenizer_sha256,
        )


def _require_same_work(world: World, files: EvaluatedFiles, batching: Batching) -> None:
    """Raise an error if the processes read different files or batch them differently."""
    data = {f"SHA-256 of {file.path}": file.sha256 for file in files.files}
    require_same_values(world, data, FileChangedError, "give every process the same data files")
    chosen = {"batching": "packed" if batching.is_packed else "padded"}
    require_same_values(world, chosen, ModelError, "use machines of one kind, or --devices 1")


@dataclass(frozen=True)
class Difference:
    """The score of one model minus that of another on the same dialogues or turns."""

    value: float
    interval: tuple[float, float] | None
    """95 %; None for a score that has no interval."""


def compare(one: ModelScores, other: ModelScores) -> dict[str, Difference]:
    """Return each score of ``one`` minus that of ``other``.

    Loss and perplexity are compared only if both models have the same tokens, and replies only on
    the turns that both answered.
    """
    is_same = one.tokenizer == other.tokenizer and (
        one.result.num_targets == other.result.num_targets
    )
    ours, theirs = one.likelihood.scores, other.likelihood.scores
    intervals = paired_likelihood_intervals(one.likelihood, other.likelihood)
    differences = {
        name: Difference(ours[name] - theirs[name], intervals.get(name))
        for name in ours
        if is_same or name in OF_ANY_TOKENIZER
    }
    common = sorted(one.replies.keys() & other.replies.keys())
    if not common:
        return differences
    our_replies = [one.replies[number] for number in common]
    their_replies = [other.replies[number] for number in common]
    ours, theirs = scores_of(measure(our_replies)), scores_of(measure(their_replies))
    intervals = paired_intervals(our_replies, their_replies)
    return differences | {
        name: Difference(ours[name] - theirs[name], intervals.get(name)) for name in ours
    }
