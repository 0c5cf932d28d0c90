"""The composition root: builds the parts of a run from its config, starts it or goes on with it.

Everything is checked before the run directory exists; from then on a checkpoint is always there to resume from.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from convo_cli.config.load import dump_config, load_config
from convo_cli.config.schema import RunConfig, TrainingConfig
from convo_cli.data.reader import read_dialogues
from convo_cli.data.store import ASSISTANT_TARGET, USER_TARGET, TokenStore
from convo_cli.errors import ChangedError, ConfigError, StoppedError
from convo_cli.evaluation.replies import choose_dialogues
from convo_cli.events import Event, Notice, Report, RunFinished, RunStarted
from convo_cli.model.build import (
    build_scratch_model,
    fit_vocabulary,
    load_model,
    require_context,
    save_memory,
    set_generation_defaults,
    use_fast_activations,
)
from convo_cli.model.cost import peak_flops
from convo_cli.model.device import autocast_for, choose_device, choose_precision, make_deterministic, move
from convo_cli.model.layout import choose_layout, proof_examples
from convo_cli.runs.atomic import disk_errors, make_directory, remove_directory, remove_leftovers, write_file
from convo_cli.runs.checkpoint import Which, find_checkpoint
from convo_cli.runs.layout import RunDirectory, existing_run, require_new
from convo_cli.runs.lock import locked
from convo_cli.runs.metrics import MetricsLog
from convo_cli.runs.plots import plot_losses, plot_schedule
from convo_cli.runs.provenance import read_data_files, require_same_data, write_run_info
from convo_cli.runs.tensorboard import TensorBoardLog
from convo_cli.text.contract import load_encoder, spiece_of
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.training.cache import Cache
from convo_cli.training.checkpoint import restore_state
from convo_cli.training.loop import STOPPED_BY_SIGNAL, train
from convo_cli.training.optim import make_optimizer
from convo_cli.training.plan import Parts, make_plan
from convo_cli.training.preflight import count_tokens
from convo_cli.training.prepare import PreparedData, build_encoder, prepare_data
from convo_cli.training.signals import StopRequest, listening
from convo_cli.training.state import TrainState

if TYPE_CHECKING:
    from transformers import PreTrainedModel


_ALL_TARGETS = (ASSISTANT_TARGET, USER_TARGET)
_SETTLED = ("name", "output_dir", "model", "tokenizer", "dialogue.template", "dialogue.max_length")
"""Keys that only the beginning of a run reads."""


@dataclass(frozen=True)
class RunResult:
    """How a run ended."""

    run_dir: Path
    step: int
    reason: str
    best_loss: float | None
    best_metric: float | None


def start_run(config: RunConfig, report: Report) -> RunResult:
    """Train from the beginning into a new run directory. See `convo_cli.training.loop.train` for what is raised."""
    run = RunDirectory(Path(config.output_dir) / config.name)
    require_new(run)
    device = choose_device(config.training.device)
    if config.deterministic:
        make_deterministic(device)
    files = read_data_files(config.data)
    cache = Cache(run.path.parent, report)
    text = build_encoder(config, files, cache, report)
    data = prepare_data(config, files, text.encoder, cache, report)
    if config.model.scratch is not None:
        model = build_scratch_model(config.model.scratch, text.encoder, config.seed)
    else:
        assert config.model.pretrained is not None, "the schema allows exactly one origin"
        model = load_model(config.model.pretrained, config.model.revision)
        added = fit_vocabulary(model, len(text.encoder.tokenizer), config.seed)
        if added:
            report(Notice(f"{added} rows were added to the model's embeddings for {text.num_new_tokens} new tokens"))
    parts = _assemble(config, text.encoder, text.spiece, model, data, device, report)
    require_new(run)  # again: preparing may have taken minutes
    with listening() as stop:  # from here on a signal leaves a run that can be resumed
        make_directory(run.checkpoints)
        with locked(run):
            write_file(run.config, dump_config(_with_absolute_paths(config)))
            write_run_info(run, files, device=str(device))
            return _train(run, parts, _new_state(parts), stop, report)


def resume_run(run_dir: Path, which: Which, config: RunConfig, report: Report) -> RunResult:
    """Go on exactly where a checkpoint stands; ``config`` is the run's own, with the user's changes.

    Loading the best by loss or metric discards what came after it, and says so. Raises CheckpointError where there is
    nothing whole to load, ChangedError where the data is not what the run began with.
    """
    run = existing_run(run_dir)
    with locked(run):
        _require_same_config(load_config(run.config), config)
        remove_leftovers(run.path)
        remove_leftovers(run.checkpoints)
        files = read_data_files(config.data)
        require_same_data(run, files)
        checkpoint = find_checkpoint(run, which, report)
        device = choose_device(config.training.device)
        if config.deterministic:
            make_deterministic(device)
        encoder = load_encoder(checkpoint.path)
        if encoder.max_length != config.dialogue.max_length:
            raise ChangedError(
                f"dialogue.max_length is {config.dialogue.max_length}, but the run was made with {encoder.max_length}",
                hint="start another run to change it",
            )
        data = prepare_data(config, files, encoder, Cache(run.path.resolve().parent, report), report)
        model = load_model(str(checkpoint.path))
        parts = _assemble(config, encoder, spiece_of(checkpoint.path), model, data, device, report)
        state = _new_state(parts)
        restore_state(checkpoint.path, state)
        with listening() as stop:
            _discard_after(run, state.progress.step, report)
            write_file(run.config, dump_config(_with_absolute_paths(config)))
            report(Notice(f"going on from {checkpoint.path.name}, the {which} checkpoint"))
            return _train(run, parts, state, stop, report)


def _assemble(
    config: RunConfig,
    encoder: DialogueEncoder,
    spiece: bytes | None,
    model: PreTrainedModel,
    data: PreparedData,
    device: torch.device,
    report: Report,
) -> Parts:
    require_context(model, encoder.max_length)
    set_generation_defaults(model, encoder, config.generation)
    use_fast_activations(model)
    if config.training.gradient_checkpointing:
        save_memory(model)
    move(model, device)
    layout = choose_layout(
        model, proof_examples(data.train, _ALL_TARGETS), _ALL_TARGETS,
        packing=config.training.packing, pad_id=encoder.pad_id, report=report,
        autocast=autocast_for(device, choose_precision(config.training.precision, device)),
    )  # fmt: skip
    if config.training.compile:
        model.base_model.compile(dynamic=True)  # in place: the module that is saved and generated with stays the same
    steps_per_epoch = _steps_per_epoch(data.train, config.training)
    max_steps = config.training.max_steps
    if max_steps is None:
        assert config.training.epochs is not None, "the schema asks for one of the two"
        max_steps = max(1, math.ceil(config.training.epochs * steps_per_epoch))
        if config.training.warmup_steps > max_steps:
            raise ConfigError(
                f"training.warmup_steps is {config.training.warmup_steps}, but {config.training.epochs:g} epochs of "
                f"this data are {max_steps} steps",
                hint=f"--set training.warmup_steps={max_steps // 10}",
            )
    validation = read_dialogues(config.data.validation, config.data)
    reply_dialogues = tuple(choose_dialogues(validation, config.evaluation.reply_dialogues, config.seed))
    return Parts(config, encoder, spiece, model, data, reply_dialogues, layout, device, max_steps, steps_per_epoch)


def _steps_per_epoch(store: TokenStore, training: TrainingConfig) -> float:
    if training.batch_tokens is not None:
        return store.num_tokens / training.batch_tokens
    assert training.batch_size is not None, "the schema asks for one of the two"
    return len(store) / training.batch_size


def _new_state(parts: Parts) -> TrainState:
    training = parts.config.training
    precision = choose_precision(training.precision, parts.device)
    scaler = torch.amp.GradScaler(parts.device.type, enabled=precision == "fp16")
    return TrainState(parts.model, make_optimizer(parts.model, training), scaler)


def _train(run: RunDirectory, parts: Parts, state: TrainState, stop: StopRequest, report: Report) -> RunResult:
    """Attach the run directory's own reporters, draw the schedule, and hand over to the loop."""
    config = parts.config
    step = state.progress.step
    with ExitStack() as stack:
        log = MetricsLog(run.metrics, run.samples, after_step=step)
        reporters: list[Report] = [stack.enter_context(closing(log))]
        if config.logging.tensorboard:
            board = TensorBoardLog(run.tensorboard, after_step=step)
            reporters.append(stack.enter_context(closing(board)))
        reporters.append(report)

        def tell(event: Event) -> None:
            for reporter in reporters:
                reporter(event)

        plan = make_plan(run, parts, stop, tell)
        if config.logging.plots:
            with disk_errors(run.plots):
                run.plots.mkdir(exist_ok=True)
            plot_schedule(run.plots / "learning_rate.png", [plan.learning_rate(k) for k in range(parts.max_steps)])
        tell(_started(run, parts, state))
        reason = train(state, plan, tell)
        if config.logging.plots:
            plot_losses(run.plots / "loss.png", run.metrics)
        tell(RunFinished(state.progress.step, reason))
    if stop.signal_number is not None and reason == STOPPED_BY_SIGNAL:
        raise StoppedError(
            stop.signal_number,
            f"stopped after step {state.progress.step} of {parts.max_steps}; the run is saved",
            hint=f"convo resume {shlex.quote(str(run.path))}",
        )
    progress = state.progress
    return RunResult(run.path, progress.step, reason, progress.best_loss, progress.best_metric)


def _discard_after(run: RunDirectory, step: int, report: Report) -> None:
    """Delete the checkpoints after the one that is resumed: the run goes another way from here."""
    later = [later for later in run.checkpoint_steps() if later > step]
    if later:
        names = ", ".join(run.checkpoint(one).name for one in later)
        report(Notice(f"discarding what came after step {step}: {names} and their log lines", is_warning=True))
    for one in later:
        remove_directory(run.checkpoint(one))


def _started(run: RunDirectory, parts: Parts, state: TrainState) -> RunStarted:
    encoder, data = parts.encoder, parts.data
    return RunStarted(
        run_dir=run.path,
        device=str(parts.device),
        precision=choose_precision(parts.config.training.precision, parts.device),
        num_parameters=sum(parameter.numel() for parameter in parts.model.parameters()),
        template=encoder.template.name,
        max_length=encoder.max_length,
        training=count_tokens(data.train, encoder.max_length),
        validation=None if data.validation is None else count_tokens(data.validation, encoder.max_length),
        first_step=state.progress.step + 1,
        max_steps=parts.max_steps,
        steps_per_epoch=math.ceil(parts.steps_per_epoch),
        peak_flops=peak_flops(parts.device, choose_precision(parts.config.training.precision, parts.device)),
    )


def _require_same_config(before: RunConfig, now: RunConfig) -> None:
    """Raise ChangedError for a key that is settled in the checkpoints, so that changing it would do nothing."""
    for key in _SETTLED:
        old, new = attrgetter(key)(before), attrgetter(key)(now)
        if old != new:
            raise ChangedError(
                f"{key} is {new!r}, but the run was made with {old!r}", hint="start another run to change it"
            )


def _with_absolute_paths(config: RunConfig) -> RunConfig:
    """Data paths that still work when the run is resumed from another folder."""

    def absolute(paths: Sequence[str]) -> tuple[str, ...]:
        return tuple(str(Path(path).resolve()) for path in paths)

    data = config.data.model_copy(
        update={"train": absolute(config.data.train), "validation": absolute(config.data.validation)}
    )
    return config.model_copy(update={"data": data})
