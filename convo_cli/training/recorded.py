"""Training with the logs and plots of a run directory; the outcome is a result or an error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import replace

from convo_cli.config.load import dump_config
from convo_cli.errors import DiskError, DivergedError, StoppedError, typeable
from convo_cli.evaluation.health.alerts import Alerts
from convo_cli.events import (
    Emit,
    EvaluationDone,
    Event,
    Notice,
    RunFinished,
    RunStarted,
    StepDone,
    ignore,
)
from convo_cli.model.cost import peak_flops
from convo_cli.model.device import has_drawn_random_numbers
from convo_cli.report.live_page import LivePage
from convo_cli.runs.directory import RunDirectory, remove_stop_file
from convo_cli.runs.logs.evaluations import best_scores
from convo_cli.runs.logs.event_log import MetricsLog, read_metrics
from convo_cli.runs.logs.loss_plot import LossPlot, plotting
from convo_cli.runs.logs.plots import plot_schedule
from convo_cli.runs.logs.tensorboard import TensorBoardLog
from convo_cli.signals import StopRequest
from convo_cli.tokens.shares import file_shares
from convo_cli.training.build import share_state
from convo_cli.training.job import RunJob
from convo_cli.training.loop import STOPPED, StepDivergedError, step_seed, train
from convo_cli.training.optim import schedule_corners
from convo_cli.training.outcome.result import RunResult, result_of
from convo_cli.training.outcome.scoring import score_test_data
from convo_cli.training.planning.memory_advice import naming_settings
from convo_cli.training.resume.horizon import warm_up_notices
from convo_cli.training.run_parts import Parts
from convo_cli.training.sharding.joint_saving import save_step
from convo_cli.training.state import TrainState

_OTHER_DROPOUT = (
    "dropout: each process drops different values, so losses differ from those of one process by "
    "more than rounding"
)
_MAX_NAMED = 5
"""Maximum number of dialogues that an error lists."""


def train_and_record(
    run: RunDirectory,
    parts: Parts,
    state: TrainState,
    evaluations: dict[int, EvaluationDone],
    stop: StopRequest,
    emit: Emit,
) -> RunResult:
    """Attach the reporters of the run directory, plot the schedule, and run the training loop.

    ``evaluations`` holds those of earlier steps, by step; new ones are added to it.
    """
    config = parts.config
    step = state.progress.step
    with ExitStack() as stack:
        log = MetricsLog(run.metrics, run.samples, after_step=step, is_evaluated=state.is_evaluated)
        reporters: list[Emit] = [stack.enter_context(closing(log))]
        if config.logging.tensorboard:
            board = TensorBoardLog(run.tensorboard, after_step=step, config=dump_config(config))
            reporters.append(stack.enter_context(closing(board)))
        reporters.append(emit)

        def emit_to_all(event: Event) -> None:
            if isinstance(event, EvaluationDone):
                evaluations[event.step] = replace(event, samples=())
            for reporter in reporters:
                reporter(event)

        # After the screen, whose line of scores comes before the warnings about them.
        alerts = Alerts(emit_to_all, read_metrics(run.metrics))
        reporters.append(alerts)
        job = RunJob(run, parts, stop, emit_to_all, evaluations, alerts.curve)
        if parts.world.size > 1:
            reporters.append(_noticing_dropout(parts, step, emit_to_all))
        loss_plot = page = None
        if config.logging.plots:
            _plot_schedule(run, parts, job, emit_to_all)
            loss_plot, page = LossPlot(run, config.name, emit_to_all), LivePage(run, emit_to_all)
            reporters += [loss_plot, page]  # after the log, which they read, and after the screen
        for notice in warm_up_notices(parts, step):
            emit_to_all(notice)
        emit_to_all(started(run, parts, state, evaluations))
        _begin_together(parts, state)
        try:
            with naming_settings(parts, run, has_moments=step > 0):
                reason = train(state, job)
        except StepDivergedError as error:
            explained = _explained(error, run, parts, state, evaluations, emit_to_all)
            if loss_plot is not None and page is not None:
                loss_plot.draw()
                page.write(is_running=False)
            raise explained from error
        if loss_plot is not None:
            loss_plot.draw()
        if reason != STOPPED:
            alerts.finish()
        try:
            test = (
                None if reason == STOPPED else score_test_data(run, parts, state, stop, emit_to_all)
            )
        finally:
            emit_to_all(RunFinished(state.progress.step, reason, is_stopped=reason == STOPPED))
    if reason == STOPPED:
        remove_stop_file(run)
        message = f"stopped after step {state.progress.step} of {parts.max_steps}; the run is saved"
        resume = f"convo resume {typeable(run.path)}"
        if stop.signal_number is not None:
            raise StoppedError(stop.signal_number, message, hint=resume)
        emit(Notice(message))
    return result_of(run, parts, state, reason, evaluations, test)


def _noticing_dropout(parts: Parts, first: int, emit: Emit) -> Emit:
    """Return a reporter that emits a notice if the first step after ``first`` used dropout."""

    def look(event: Event) -> None:
        seed = step_seed(parts.config.seed, first)
        is_due = isinstance(event, StepDone) and event.step == first + 1
        if is_due and has_drawn_random_numbers(parts.device, seed):
            emit(Notice(_OTHER_DROPOUT))

    return look


def _begin_together(parts: Parts, state: TrainState) -> None:
    """Wait for what rank 0 writes and plots before step 1, and take over its weights."""
    parts.world.first_alone(lambda: None)
    share_state(parts, state)


def follow(
    run: RunDirectory,
    parts: Parts,
    state: TrainState,
    evaluations: dict[int, EvaluationDone],
    stop: StopRequest,
) -> RunResult:
    """Take part in a run as a rank other than 0; rank 0 writes everything."""
    _begin_together(parts, state)
    job = RunJob(run, parts, stop, ignore, evaluations)
    try:
        with naming_settings(parts, run, has_moments=state.progress.step > 0):
            reason = train(state, job)
    except StepDivergedError:
        save_step(run, parts, state, evaluations, ignore, world=parts.world)
        raise  # rank 0 reports the error
    if reason != STOPPED:
        score_test_data(run, parts, state, stop, ignore)
    return result_of(run, parts, state, reason, evaluations, None)


def _plot_schedule(run: RunDirectory, parts: Parts, job: RunJob, emit: Emit) -> None:
    corners = schedule_corners(parts.config.training, parts.max_steps)
    with plotting("learning_rate.png", emit):
        plot_schedule(
            run.plots / "learning_rate.png",
            job.learning_rate,
            parts.max_steps,
            corners,
            run_name=parts.config.name,
        )


def _explained(
    error: StepDivergedError,
    run: RunDirectory,
    parts: Parts,
    state: TrainState,
    evaluations: Mapping[int, EvaluationDone],
    emit: Emit,
) -> DivergedError:
    """Save the state from before the step, and return the error with the dialogues of the step."""
    step, store, files = state.progress.step, parts.data.train, parts.config.data.train
    try:
        save_step(run, parts, state, evaluations, emit, world=parts.world)
        saved = f"saved as {run.checkpoint(step).name}"
    except (DivergedError, DiskError) as refusal:
        last = run.checkpoint_steps()[-1]
        saved = f"not saved ({refusal.message}); the last checkpoint is that of step {last}"
    dialogues = sorted({int(store.dialogue_of[index]) for index in parts.order.examples(step)})
    named = "".join(f"\n  {store.where(dialogue, files)}" for dialogue in dialogues[:_MAX_NAMED])
    more = f"\n  and {len(dialogues) - _MAX_NAMED} more" if len(dialogues) > _MAX_NAMED else ""
    return DivergedError(
        f"{error.message}, {saved}; step {step + 1} trains on these dialogues:{named}{more}",
        hint=error.hint,
    )


def _peak_flops(parts: Parts) -> float | None:
    """Return the operations per second of all devices; None if not known."""
    peak = peak_flops(parts.device, parts.execution.precision)
    return None if peak is None else peak * parts.world.size


def started(
    run: RunDirectory,
    parts: Parts,
    state: TrainState,
    evaluations: Mapping[int, EvaluationDone],
) -> RunStarted:
    """Return the event with which training begins."""
    encoder, data, execution = parts.encoder, parts.data, parts.execution
    evaluation, epoch = parts.config.evaluation, parts.order.steps_per_epoch
    validation = parts.config.data.validation or parts.config.data.train
    between_evaluations = None if data.validation is None else evaluation.every_steps or epoch
    between_saves = parts.config.checkpoints.every_steps or evaluation.every_steps or epoch
    return RunStarted(
        run_dir=run.path,
        device=execution.device,
        precision=execution.precision,
        num_processes=execution.num_processes,
        micro_batch_size=execution.micro_batch_size,
        num_threads=execution.num_threads,
        num_parameters=sum(parameter.numel() for parameter in parts.model.parameters()),
        template=encoder.template.name,
        max_length=encoder.max_length,
        **data.counts(encoder.max_length),
        files=file_shares(parts.config.data, data.train, parts.order, parts.max_steps),
        validation_files=validation if len(validation) > 1 else (),
        first_step=state.progress.step + 1,
        max_steps=parts.max_steps,
        steps_per_epoch=math.ceil(parts.order.steps_per_epoch),
        peak_flops=_peak_flops(parts),
        batch_size=parts.config.training.batch_size,
        steps_per_evaluation=between_evaluations,
        steps_per_checkpoint=min(between_saves, between_evaluations or between_saves),
        metric=evaluation.metric,
        best=best_scores(evaluations.values(), evaluation.metric),
    )
