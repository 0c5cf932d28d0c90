"""Assembly of a run's parts, from a config or a checkpoint: model, data, batching, optimizer."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from convo_cli.config.schema import PretrainedModel, RunConfig, ScratchConfig, Steps
from convo_cli.events import Emit, Notice, begin
from convo_cli.model.adapters.creation import add_adapter, require_adaptable
from convo_cli.model.batches.batching import batching_for
from convo_cli.model.causal import require_causal
from convo_cli.model.context import require_context
from convo_cli.model.create import (
    build_scratch_model,
    fit_vocabulary,
    save_memory,
    train_every_row,
    use_fast_activations,
)
from convo_cli.model.decoding.sampling_defaults import set_generation_defaults
from convo_cli.model.device import autocast_for, move
from convo_cli.model.loading import load_model
from convo_cli.prepare.inputs import Inputs
from convo_cli.prepare.prepare import PreparedData, prepare_data
from convo_cli.prepare.prepared_text import build_encoder
from convo_cli.prepare.reply_dialogues import find_reply_dialogues, find_training_facts
from convo_cli.runs.checkpoints import Progress, read_state
from convo_cli.runs.provenance.execution import Machine
from convo_cli.runs.provenance.run_info import BaseModelFiles, RunInfo, read_base_model
from convo_cli.storage.snapshot import Snapshot
from convo_cli.text.contract import load_encoder
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.spiece.piece_model import SpieceFile, read_spiece
from convo_cli.text.tokenizers.hub import local_folder
from convo_cli.text.tokenizers.vocabulary import num_ids
from convo_cli.tokens.order import Order
from convo_cli.tokens.phase import Phase
from convo_cli.tokens.store import ASSISTANT_TARGET, USER_TARGET
from convo_cli.training.fitting.micro_batches import with_micro_batch_size
from convo_cli.training.machine import choose_machine, execution_of
from convo_cli.training.optim import make_optimizer
from convo_cli.training.planning.memory_advice import require_memory
from convo_cli.training.run_parts import Parts
from convo_cli.training.saving import load_checkpoint_model, restore_state
from convo_cli.training.sharding.fsdp import choose_sharding, shard_model
from convo_cli.training.sharding.whole_tensors import is_distributed
from convo_cli.training.state import TrainState
from convo_cli.wording import counted

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def settle_base_model(
    config: RunConfig, emit: Emit
) -> tuple[RunConfig, BaseModelFiles | None, Snapshot | None]:
    """Hash the files of the pretrained model, and return the config with its commit.

    The snapshot is from before the files were hashed.
    """
    origin = config.model.origin
    if not isinstance(origin, PretrainedModel):
        return config, None, None
    begin("hashing the base model", emit)
    folder = local_folder(origin.source, origin.revision)
    before = Snapshot.of(folder)
    files = read_base_model(origin.source, folder)
    if files.commit is not None:  # the branch on the hub may move before the model is loaded
        model = config.model.model_copy(update={"revision": files.commit})
        config = config.model_copy(update={"model": model})
    return config, files, before


def build_new(inputs: Inputs, base_model: BaseModelFiles | None = None) -> tuple[Parts, TrainState]:
    """Build the parts and the state of a new run; ``base_model`` is that of an adapter."""
    config, emit = inputs.config, inputs.emit
    machine = choose_machine(None, config, emit, inputs.world)
    with inputs.world.after_first():
        text = build_encoder(inputs)
        require_adaptable(config.model, text.encoder)
        data = prepare_data(inputs, text.encoder)
    origin = config.model.origin
    begin("loading the model", emit)
    if isinstance(origin, ScratchConfig):
        model = build_scratch_model(origin, text.encoder, config.seed)
    else:
        model = load_model(origin.source, origin.revision)
        added = fit_vocabulary(model, num_ids(text.encoder.tokenizer), config.seed)
        if added:
            emit(
                Notice(
                    f"added {counted(added, 'row')} to the model's embeddings for "
                    f"{counted(text.num_new_tokens, 'new token')}"
                )
            )
        if config.model.lora is not None and base_model is not None:
            add_adapter(
                model, config.model.lora, base_model, text.encoder,
                num_added=added, seed=config.seed, emit=emit,
            )  # fmt: skip
    parts = _assemble(inputs, _Beginning(text.encoder, text.spiece, data, model, machine))
    return parts, _new_state(parts)


def build_from(checkpoint: Path, info: RunInfo, inputs: Inputs) -> tuple[Parts, TrainState]:
    """Build the parts and the state of a checkpoint.

    Device, precision and batching come from ``info``, the run's run.json, unless the config asks
    for others or they cannot be used on this machine.
    """
    machine = choose_machine(info, inputs.config, inputs.emit, inputs.world)
    encoder = load_encoder(checkpoint)
    with inputs.world.after_first():
        data = prepare_data(inputs, encoder)
    begin("loading the checkpoint", inputs.emit)
    origin = inputs.config.model.origin
    base = origin if isinstance(origin, PretrainedModel) else None
    model = load_checkpoint_model(checkpoint, base)
    spiece, progress = read_spiece(checkpoint, str(checkpoint)), read_state(checkpoint).progress
    beginning = _Beginning(encoder, spiece, data, model, machine, progress, info)
    parts = _assemble(inputs, beginning)
    if parts.execution.sharding == "full":  # before the moments take memory
        shard_model(parts.model, parts.world)
    state = _new_state(parts)
    restore_state(checkpoint, state)
    state.progress.phases = parts.order.phases
    return parts, state


def share_state(parts: Parts, state: TrainState) -> None:
    """Give all processes the state of rank 0, and each its part of it if the run is sharded."""
    if is_distributed(state.model):  # a resumed run; each part comes from the checkpoint
        return
    parts.world.share_weights(state.model.state_dict().values())
    if parts.execution.sharding == "full":
        shard_model(state.model, parts.world)
        state.optimizer = make_optimizer(state.model, parts.config.training)


@dataclass(frozen=True)
class _Beginning:
    """The parts that a new run creates and a resumed run loads from its checkpoint."""

    encoder: DialogueEncoder
    spiece: SpieceFile | None
    data: PreparedData
    model: PreTrainedModel
    machine: Machine
    progress: Progress = field(default_factory=Progress)
    info: RunInfo | None = None
    """run.json of a resumed run."""


def _assemble(inputs: Inputs, beginning: _Beginning) -> Parts:
    """Prepare the model, choose its batching, and compute the order and number of steps."""
    config, training = inputs.config, inputs.config.training
    encoder, model = beginning.encoder, beginning.model
    data, machine, info = beginning.data, beginning.machine, beginning.info
    device = torch.device(machine.device)
    begin("checking the model", inputs.emit)
    require_context(model, encoder.max_length)
    set_generation_defaults(model, encoder, config.generation)
    use_fast_activations(model)
    train_every_row(model)
    if training.gradient_checkpointing:
        save_memory(model)
    move(model, device)
    require_causal(model, encoder)
    batching = batching_for(
        model,
        data.train,
        (ASSISTANT_TARGET, USER_TARGET),
        # The user may have changed the setting at a resume.
        info=info if info and training.packing == info.config.training.packing else None,
        packing=training.packing,
        pad_id=encoder.pad_id,
        autocast=autocast_for(device, machine.precision),
        emit=inputs.emit,
    )
    if training.compile:
        # In place, so that saving and generation keep using the same module.
        model.base_model.compile(dynamic=True)
    sharding = choose_sharding(training.sharding, model, inputs.world, inputs.emit)
    progress, length = beginning.progress, training.length
    phases = progress.phases or (Phase.of(training),)
    files = [(size, config.data.weights[file]) for file, size in data.train.file_stretches]
    order = Order(data.train.lengths, config.seed, phases, files)
    order = order.resumed(progress.step, training)
    with inputs.world.after_first():
        reply_dialogues = find_reply_dialogues(inputs, "validation")
        test_reply_dialogues = find_reply_dialogues(inputs, "test")
        training_facts = find_training_facts(inputs)
    parts = Parts(
        config=config,
        encoder=encoder,
        spiece=beginning.spiece,
        model=model,
        data=data,
        reply_dialogues=reply_dialogues,
        test_reply_dialogues=test_reply_dialogues,
        training_facts=training_facts,
        batching=batching,
        execution=execution_of(machine, batching, sharding),
        device=device,
        order=order,
        max_steps=length.number if isinstance(length, Steps) else order.num_steps(length.number),
        world=inputs.world,
    )
    parts = with_micro_batch_size(parts, info, inputs.emit)
    require_memory(parts, inputs.emit)
    return parts


def _new_state(parts: Parts) -> TrainState:
    training = parts.config.training
    scaler = torch.amp.GradScaler(parts.device.type, enabled=parts.execution.precision == "fp16")
    progress = Progress(phases=parts.order.phases)
    return TrainState(parts.model, make_optimizer(parts.model, training), scaler, progress)
