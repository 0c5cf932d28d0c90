"""Saving and loading of checkpoints: a Hugging Face folder with optimizer and progress of the run.

`convo chat` and plain transformers open it as it is, and it holds everything that `resume` needs.
Nothing in it can run code: weights and optimizer are safetensors, the rest is JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor

from convo_cli.config.schema import PretrainedModel
from convo_cli.errors import CheckpointError, DivergedError, ModelError
from convo_cli.events import CheckpointSaved, Emit
from convo_cli.model.adapters.lora import saved_tensors
from convo_cli.model.loading import load_model, save_config, save_model
from convo_cli.model.tensor_files import file_name, num_bytes, reading, tensor_files
from convo_cli.runs.checkpoints import STATE_FILE, SavedState, read_state, write_state
from convo_cli.runs.directory import RunDirectory, require_own_checkpoints
from convo_cli.storage.atomic import publish_directory, require_space, sync_file
from convo_cli.text.contract import save_encoder
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.spiece.piece_model import SpieceFile
from convo_cli.text.tokenizers.vocabulary import num_ids
from convo_cli.training.sharding.fsdp import distributed_like
from convo_cli.training.sharding.shards import publish_shards
from convo_cli.training.sharding.whole_tensors import (
    is_distributed,
    local_part,
    model_tensors,
)
from convo_cli.training.state import TrainState
from convo_cli.world import World

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OPTIMIZER_FILE = file_name("optimizer")
_MOMENTS = {"step", "exp_avg", "exp_avg_sq"}
_ROUNDED = {"F16", "BF16", "F8_E4M3", "F8_E5M2"}
_BYTES_PER_TOKEN = 160  # of tokenizer.json, a generous estimate
_MARGIN = 2**18


def save_checkpoint(
    run: RunDirectory,
    state: TrainState,
    encoder: DialogueEncoder,
    *,
    spiece: SpieceFile | None,
    emit: Emit,
    world: World | None = None,
) -> None:
    """Publish the state as a checkpoint, after the logs of its steps have reached the disk.

    Before writing anything, raises DivergedError if a number is not finite and DiskError if there
    is not enough space. If each process of the world holds some rows of the tensors, all of them
    must call this, and each writes its shards; otherwise only one may.
    """
    is_sharded = is_distributed(state.model)
    world = world if world is not None and is_sharded else World()
    moments = optimizer_tensors(state)
    weights = model_tensors(state.model) if is_sharded else saved_tensors(state.model)
    _require_finite({**weights, **moments}, state.progress.step, world)
    path = run.checkpoint(state.progress.step)

    def prepare() -> None:
        require_own_checkpoints(run)
        require_space(
            path,
            _size({**weights, **moments})
            + _BYTES_PER_TOKEN * num_ids(encoder.tokenizer)
            + (len(spiece.content) if spiece else 0)
            + _MARGIN,
        )
        for log in (run.metrics, run.samples):
            sync_file(log)

    def fill(folder: Path) -> None:
        if is_sharded:
            save_config(state.model, folder)
        else:
            save_model(state.model, folder)
            save_file(moments, folder / OPTIMIZER_FILE)
        save_encoder(encoder, folder, spiece=spiece)
        saved = SavedState(
            run_id=state.run_id, progress=state.progress, scaler=state.scaler.state_dict()
        )
        write_state(folder, saved)

    world.first_alone(prepare)
    if is_sharded:
        kinds = {"model": weights, "optimizer": moments}
        publish_shards(path, kinds, fill, world, below=run.path)
    else:
        publish_directory(path, fill, below=run.path)
    emit(CheckpointSaved(state.progress.step, path))


def load_checkpoint_model(path: Path, base: PretrainedModel | None = None) -> PreTrainedModel:
    """Load the model of a checkpoint as it was saved; CheckpointError if a tensor does not fit."""
    for file in tensor_files(path, "model"):
        with reading(file), safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118  # not a mapping
                if (dtype := opened.get_slice(name).get_dtype()) in _ROUNDED:
                    raise CheckpointError(f"{file}: {name} is {dtype}, but the run trains in F32")
    try:
        return load_model(str(path), base=base)
    except ModelError as error:
        raise CheckpointError(error.message, hint="go back to an earlier checkpoint") from error


def restore_state(path: Path, state: TrainState) -> None:
    """Load optimizer, scaler and progress of the checkpoint that the state's model is from.

    CheckpointError names what does not fit, and leaves the state unchanged.
    """
    saved = read_state(path)
    tensors: dict[str, torch.Tensor] = {}
    for file in tensor_files(path, "optimizer"):
        with reading(file):
            tensors |= load_file(file)  # maps the file
    _require_fitting(state, tensors, saved.progress.step, path / OPTIMIZER_FILE)
    if state.scaler.is_enabled() and saved.scaler:
        found, wanted = sorted(saved.scaler), sorted(state.scaler.state_dict())
        if found != wanted:
            raise CheckpointError(
                f"{path / STATE_FILE}: the scaler has {found}, but torch's has {wanted}"
            )
        state.scaler.load_state_dict(dict(saved.scaler))
    _load_optimizer(state, tensors)
    state.progress, state.run_id = saved.progress, saved.run_id


def _require_finite(tensors: Mapping[str, torch.Tensor], step: int, world: World) -> None:
    found = next((name for name, tensor in tensors.items() if not _is_finite(tensor)), None)
    for name in world.gather(found):
        if name is not None:
            raise DivergedError(
                f"step {step}: {name} is no longer finite, so this step is not saved",
                hint="resume from the checkpoint before it with a lower training.learning_rate",
            )


def _is_finite(tensor: torch.Tensor) -> bool:
    part = local_part(tensor)
    # A finite sum proves that all numbers are, at a tenth of the cost. It can overflow, so then
    # check each number.
    return bool(part.sum().isfinite()) or bool(part.isfinite().all())


def _size(tensors: Mapping[str, torch.Tensor]) -> int:
    """Return the size on disk in bytes; a tensor with two names is written once."""
    return sum({_place(tensor): num_bytes(tensor) for tensor in tensors.values()}.values())


def _place(tensor: torch.Tensor) -> int:
    """Return what only names of the same memory have in common."""
    return id(tensor) if isinstance(tensor, DTensor) else tensor.data_ptr()


def optimizer_tensors(state: TrainState) -> dict[str, torch.Tensor]:
    """Return AdamW's moments by name and kind, such as ``transformer.wte.weight|exp_avg``."""
    names = {id(parameter): name for name, parameter in state.model.named_parameters()}
    tensors = {}
    for parameter, moments in state.optimizer.state.items():
        for kind, value in moments.items():
            tensor = torch.as_tensor(value).detach()
            is_whole = not isinstance(tensor, DTensor)
            tensors[f"{names[id(parameter)]}|{kind}"] = (
                tensor.cpu().contiguous() if is_whole else tensor
            )
    return tensors


def optimizer_file_bytes(model: PreTrainedModel) -> int:
    """Return the size of optimizer.safetensors once every trained parameter has moments."""
    shapes: dict[str, list[int]] = {}
    for name, parameter in trained_parameters(model).items():
        for kind in _MOMENTS:
            shapes[f"{name}|{kind}"] = [] if kind == "step" else list(parameter.shape)
    header: dict[str, object] = {}
    end = 0
    for key, shape in sorted(shapes.items()):  # the order in which safetensors writes them
        offsets = [end, end + 4 * math.prod(shape)]
        header[key] = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
        end = offsets[1]
    text = json.dumps(header, separators=(",", ":"))
    return 8 + 8 * math.ceil(len(text.encode()) / 8) + end


def trained_parameters(model: PreTrainedModel) -> dict[str, torch.nn.Parameter]:
    """Return the parameters that the optimizer updates, by name."""
    return {
        name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad
    }


def _require_fitting(
    state: TrainState, tensors: Mapping[str, torch.Tensor], step: int, file: Path
) -> None:
    """Check names, shapes and types against AdamW's moments for the trained parameters."""
    trained = trained_parameters(state.model)
    found: dict[str, set[str]] = {}
    for key, tensor in tensors.items():
        name, _, kind = key.rpartition("|")
        if name not in trained or kind not in _MOMENTS:
            raise CheckpointError(
                f"{file}: holds {key} {_form(tensor)}, which does not fit the model"
            )
        wanted = torch.zeros(()) if kind == "step" else trained[name]
        if (tensor.shape, tensor.dtype) != (wanted.shape, wanted.dtype):
            raise CheckpointError(
                f"{file}: {key} is {_form(tensor)}, but the model has {_form(wanted)}"
            )
        found.setdefault(name, set()).add(kind)
    for name, kinds in found.items():
        if missing := _MOMENTS - kinds:
            raise CheckpointError(f"{file}: {name}|{min(missing)} is missing")
    if step and not found:
        raise CheckpointError(f"{file}: it is empty, but the checkpoint is that of step {step}")


def _form(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _load_optimizer(state: TrainState, tensors: Mapping[str, torch.Tensor]) -> None:
    names = {id(parameter): name for name, parameter in state.model.named_parameters()}
    groups = state.optimizer.param_groups
    parameters = [parameter for group in groups for parameter in group["params"]]
    index = {names[id(parameter)]: place for place, parameter in enumerate(parameters)}
    loaded: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, kind = key.rpartition("|")
        place = index[name]
        wanted = tensor if kind == "step" else parameters[place]
        loaded.setdefault(place, {})[kind] = distributed_like(tensor, wanted)
    state.optimizer.load_state_dict(
        {"state": loaded, "param_groups": state.optimizer.state_dict()["param_groups"]}
    )
