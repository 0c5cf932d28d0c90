"""The loop's view of a run: what happens at a step, as functions of the step's number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from convo_cli.evaluation.evaluator import Evaluator
from convo_cli.events import Emit, EvaluationDone, Event
from convo_cli.model.cost import FlopCounter, peak_memory
from convo_cli.model.device import autocast_for
from convo_cli.model.loss import Batch
from convo_cli.runs.checkpoints import is_saved, point_and_prune
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.logs.evaluations import weights_of
from convo_cli.signals import StopRequest
from convo_cli.tokens.store import ASSISTANT_TARGET, USER_TARGET
from convo_cli.training.build import Parts
from convo_cli.training.loop import EarlyStopping, Plan
from convo_cli.training.saving import save_checkpoint
from convo_cli.training.schedule import has_user_targets, horizon_of, learning_rate_at
from convo_cli.training.state import TrainState


class _StoppedError(Exception):
    """A stop was asked for while something could tell how far it is."""


def make_plan(
    run: RunDirectory,
    parts: Parts,
    stop: StopRequest,
    emit: Emit,
    evaluations: Mapping[int, EvaluationDone] = MappingProxyType({}),
) -> Plan:
    """The loop's view of the run: functions of the step.

    ``evaluations`` are those of the run so far, by step; its owner adds those that the loop reports.
    """
    config, training, max_steps = parts.config, parts.config.training, parts.max_steps
    evaluation_every = config.evaluation.every_steps
    save_every = config.checkpoints.every_steps or evaluation_every
    autocast = autocast_for(parts.device, parts.execution.precision)

    def is_stop_requested() -> bool:
        return stop.is_set or run.is_stop_requested

    def report_unless_stopped(event: Event) -> None:
        emit(event)
        if is_stop_requested():
            raise _StoppedError

    evaluator = _evaluator(parts, autocast, report_unless_stopped)

    def is_due(step: int, every: int | None) -> bool:
        """Every so many steps; None: with each epoch that ends."""
        return parts.order.ends_epoch(step) if every is None else step % every == 0

    def evaluate(state: TrainState) -> EvaluationDone | None:
        assert evaluator is not None, "evaluations are due only where there is validation data"
        step = state.progress.step
        try:
            return replace(evaluator(state.model, step), weights=weights_of(run.checkpoint(step)))
        except _StoppedError:
            return None

    def save(state: TrainState) -> None:
        step = state.progress.step
        if not is_saved(run, step):
            save_checkpoint(run, state, parts.encoder, spiece=parts.spiece, emit=emit)
        point_and_prune(
            run,
            run.checkpoint(step),
            keep=config.checkpoints.keep,
            metric=config.evaluation.metric,
            evaluations=evaluations,
        )

    return Plan(
        max_steps=max_steps,
        seed=config.seed,
        device=parts.device,
        max_grad_norm=training.max_grad_norm,
        metric=config.evaluation.metric,
        early_stopping=EarlyStopping(
            config.evaluation.early_stopping.patience,
            config.evaluation.early_stopping.monitor == "metric",
            config.evaluation.early_stopping.min_delta,
        ),
        micro_batches=micro_batches(parts),
        nll_sum=parts.batching.nll_sum,
        flops_of=FlopCounter(parts.model),
        peak_memory=lambda: peak_memory(parts.device),
        learning_rate=lambda step: learning_rate_at(step, training, max_steps),
        epoch=parts.order.epoch,
        autocast=autocast,
        is_evaluation_due=lambda step: (
            evaluator is not None and (step == max_steps or (step > 0 and is_due(step, evaluation_every)))
        ),
        is_save_due=lambda step: is_due(step, save_every),
        evaluate=evaluate,
        save=save,
        is_stop_requested=is_stop_requested,
    )


def micro_batches(parts: Parts) -> Callable[[int], list[Batch]]:
    """The examples of a step, neighbours of like length together, as forward passes."""
    config, training, store = parts.config, parts.config.training, parts.data.train
    horizon = horizon_of(training, parts.max_steps)

    def at(step: int) -> list[Batch]:
        chosen = parts.order.examples(step)
        chosen = chosen[np.argsort(store.lengths[chosen], kind="stable")]
        kinds = {ASSISTANT_TARGET}
        if config.dialogue.train_on == "all" or has_user_targets(step, config.dialogue.user_turns_until, horizon):
            kinds.add(USER_TARGET)
        return [
            parts.batching.batch([store[int(index)] for index in chosen[part]], kinds)
            for part in parts.batching.split(store.lengths[chosen], training.micro_batch_size or len(chosen))
        ]

    return at


def _evaluator(parts: Parts, autocast: Callable[[], AbstractContextManager[None]], emit: Emit) -> Evaluator | None:
    if parts.data.validation is None:
        return None
    config = parts.config
    return Evaluator(
        encoder=parts.encoder,
        batching=parts.batching,
        store=parts.data.validation,
        dialogues=parts.reply_dialogues,
        train_on=config.dialogue.train_on,
        generation=config.generation,
        device=parts.device,
        autocast=autocast,
        emit=emit,
    )
