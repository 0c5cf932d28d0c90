"""From a config and data to the parts of a run: model, layout, optimizer; new ones, or those of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from convo_cli.config.schema import RunConfig, ScratchConfig, Steps
from convo_cli.data.dialogue import Dialogue
from convo_cli.data.unchanged import read_unchanged
from convo_cli.evaluation.replies import choose_dialogues
from convo_cli.events import Emit, Notice
from convo_cli.model.batching import Batching, choose_batching, proof_examples, stored_batching
from convo_cli.model.build import (
    build_scratch_model,
    fit_vocabulary,
    load_model,
    require_context,
    save_memory,
    train_every_row,
    use_fast_activations,
)
from convo_cli.model.causal import require_causal
from convo_cli.model.device import autocast_for, move
from convo_cli.model.generation import set_generation_defaults
from convo_cli.prepare.cache import Cache
from convo_cli.prepare.prepare import PreparedData, build_encoder, prepare_data
from convo_cli.runs.checkpoints import Progress, read_state
from convo_cli.runs.provenance.execution import Execution, Machine
from convo_cli.runs.provenance.run_info import DataFiles, RunInfo
from convo_cli.text.contract import load_encoder, spiece_of
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.tokenizers.vocabulary import num_ids
from convo_cli.tokens.order import Order
from convo_cli.tokens.phase import Phase
from convo_cli.tokens.store import ASSISTANT_TARGET, USER_TARGET, TokenStore
from convo_cli.training.machine import execution_of, first_machine, resumed_machine
from convo_cli.training.optim import make_optimizer
from convo_cli.training.saving import load_checkpoint_model, restore_state
from convo_cli.training.state import TrainState

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ALL_TARGETS = (ASSISTANT_TARGET, USER_TARGET)


@dataclass(frozen=True)
class Parts:
    """What is built from a config before the first step."""

    config: RunConfig
    encoder: DialogueEncoder
    spiece: bytes | None
    model: PreTrainedModel
    data: PreparedData
    reply_dialogues: tuple[Dialogue, ...]
    """Validation dialogues that get a generated reply at each evaluation."""
    batching: Batching
    execution: Execution
    device: torch.device
    order: Order
    """Which examples a step trains on."""
    max_steps: int


def build_new(config: RunConfig, files: DataFiles, cache: Cache, emit: Emit) -> tuple[Parts, TrainState]:
    """The parts and the state that a run begins with."""
    machine = first_machine(config)
    text = build_encoder(config, files, cache, emit)
    data = prepare_data(config, files, text.encoder, cache, emit)
    origin = config.model.origin
    if isinstance(origin, ScratchConfig):
        model = build_scratch_model(origin, text.encoder, config.seed)
    else:
        model = load_model(origin.source, origin.revision)
        added = fit_vocabulary(model, num_ids(text.encoder.tokenizer), config.seed)
        if added:
            emit(Notice(f"{added} rows were added to the model's embeddings for {text.num_new_tokens} new tokens"))
    parts = _assemble(config, files, text.encoder, text.spiece, model, data, Progress(), machine, None, emit)
    return parts, _new_state(parts)


def build_from(
    checkpoint: Path, config: RunConfig, info: RunInfo, files: DataFiles, cache: Cache, emit: Emit
) -> tuple[Parts, TrainState]:
    """The parts and the state of a checkpoint.

    What decides the bits is taken from ``info``, the run's run.json, unless ``config`` asks for something else or it
    cannot be used here.
    """
    machine = resumed_machine(info, config, emit)
    encoder = load_encoder(checkpoint)
    data = prepare_data(config, files, encoder, cache, emit)
    model = load_checkpoint_model(checkpoint)
    progress = read_state(checkpoint).progress
    parts = _assemble(config, files, encoder, spiece_of(checkpoint), model, data, progress, machine, info, emit)
    state = _new_state(parts)
    restore_state(checkpoint, state)
    state.progress.phases = parts.order.phases
    return parts, state


def _assemble(
    config: RunConfig,
    files: DataFiles,
    encoder: DialogueEncoder,
    spiece: bytes | None,
    model: PreTrainedModel,
    data: PreparedData,
    progress: Progress,
    machine: Machine,
    info: RunInfo | None,
    emit: Emit,
) -> Parts:
    device = torch.device(machine.device)
    require_context(model, encoder.max_length)
    set_generation_defaults(model, encoder, config.generation)
    use_fast_activations(model)
    train_every_row(model)
    if config.training.gradient_checkpointing:
        save_memory(model)
    move(model, device)
    require_causal(model, encoder)
    batching = _choose_batching(config, encoder, model, data.train, machine, info, emit)
    if config.training.compile:
        model.base_model.compile(dynamic=True)  # in place: the module that is saved and generated with stays the same
    training, length = config.training, config.training.length
    order = Order(data.train.lengths, config.seed, progress.phases or (Phase.of(training),))
    order = order.resumed(progress.step, training)
    max_steps = length.number if isinstance(length, Steps) else order.num_steps(length.number)
    with read_unchanged(files.validation, config.data) as validation:
        reply_dialogues = tuple(choose_dialogues(validation, config.evaluation.reply_dialogues, config.seed))
    execution = execution_of(machine, batching)
    return Parts(config, encoder, spiece, model, data, reply_dialogues, batching, execution, device, order, max_steps)


def _choose_batching(
    config: RunConfig,
    encoder: DialogueEncoder,
    model: PreTrainedModel,
    store: TokenStore,
    machine: Machine,
    info: RunInfo | None,
    emit: Emit,
) -> Batching:
    """The batching that the run stored; a new one where there is none, or it cannot be used, or the user changed it."""
    autocast = autocast_for(model.device, machine.precision)
    packing = config.training.packing
    if info is not None and packing == info.config.training.packing:
        batching = stored_batching(model, info, pad_id=encoder.pad_id, autocast=autocast)
        if isinstance(batching, Batching):
            return batching
        emit(Notice(f"the batching is chosen again: {batching}"))
    return choose_batching(
        model, proof_examples(store, _ALL_TARGETS), _ALL_TARGETS,
        packing=packing, pad_id=encoder.pad_id, autocast=autocast, emit=emit,
    )  # fmt: skip


def _new_state(parts: Parts) -> TrainState:
    training = parts.config.training
    scaler = torch.amp.GradScaler(parts.device.type, enabled=parts.execution.precision == "fp16")
    progress = Progress(phases=parts.order.phases)
    return TrainState(parts.model, make_optimizer(parts.model, training), scaler, progress)
