"""Saving and loading of checkpoints: a Hugging Face folder with optimizer and progress of the run.

`convo chat` and plain transformers open it as it is, and it holds everything that `resume` needs.
Nothing in it can run code: weights and optimizer are safetensors, the rest is JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from convo_cli.errors import CheckpointError, DiskError, DivergedError, ModelError
from convo_cli.events import CheckpointSaved, Emit
from convo_cli.model.loading import load_model, save_model
from convo_cli.runs.checkpoints import STATE_FILE, SavedState, read_state, write_state
from convo_cli.runs.directory import RunDirectory, require_own_checkpoints
from convo_cli.storage.atomic import publish_directory, require_space, sync_file
from convo_cli.storage.files import require_regular
from convo_cli.text.contract import save_encoder
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.spiece.piece_model import SpieceFile
from convo_cli.text.tokenizers.vocabulary import num_ids
from convo_cli.training.state import TrainState

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OPTIMIZER_FILE = "optimizer.safetensors"
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
) -> None:
    """Publish the state as a checkpoint, after the logs of its steps have reached the disk.

    Before writing anything, raises DivergedError if a number is not finite and DiskError if there
    is not enough space.
    """
    moments = optimizer_tensors(state)
    tensors = {**state.model.state_dict(), **moments}
    _require_finite(tensors, state.progress.step)
    path = run.checkpoint(state.progress.step)
    require_own_checkpoints(run)
    require_space(
        path,
        _size(tensors)
        + _BYTES_PER_TOKEN * num_ids(encoder.tokenizer)
        + (len(spiece.content) if spiece else 0)
        + _MARGIN,
    )

    def fill(folder: Path) -> None:
        save_model(state.model, folder)
        save_encoder(encoder, folder, spiece=spiece)
        save_file(moments, folder / OPTIMIZER_FILE)
        saved = SavedState(
            run_id=state.run_id, progress=state.progress, scaler=state.scaler.state_dict()
        )
        write_state(folder, saved)

    for log in (run.metrics, run.samples):
        sync_file(log)
    publish_directory(path, fill, below=run.path)
    emit(CheckpointSaved(state.progress.step, path))


def load_checkpoint_model(path: Path) -> PreTrainedModel:
    """Load the model of a checkpoint as it was saved; CheckpointError if a tensor does not fit."""
    for file in sorted(path.glob("model*.safetensors")):
        with _reading(file), safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118  # not a mapping
                dtype = opened.get_slice(name).get_dtype()
                if dtype in _ROUNDED:
                    raise CheckpointError(f"{file}: {name} is {dtype}, but the run trains in F32")
    try:
        return load_model(str(path))
    except ModelError as error:
        raise CheckpointError(error.message, hint="go back to an earlier checkpoint") from error


def restore_state(path: Path, state: TrainState) -> None:
    """Load optimizer, scaler and progress of the checkpoint that the state's model is from.

    CheckpointError names what does not fit, and leaves the state unchanged.
    """
    saved = read_state(path)
    file = path / OPTIMIZER_FILE
    with _reading(file):  # load_file maps the file, hence the copies
        tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    _require_fitting(state, tensors, saved.progress.step, file)
    if state.scaler.is_enabled() and saved.scaler:
        found, wanted = sorted(saved.scaler), sorted(state.scaler.state_dict())
        if found != wanted:
            raise CheckpointError(
                f"{path / STATE_FILE}: the scaler has {found}, but torch's has {wanted}"
            )
        state.scaler.load_state_dict(dict(saved.scaler))
    _load_optimizer(state, tensors)
    state.progress, state.run_id = saved.progress, saved.run_id


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        require_regular(file)
        yield
    except PermissionError as error:
        raise DiskError(f"{file}: {error.strerror}") from error
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file}: cannot be read ({error})") from error


def _require_finite(tensors: Mapping[str, torch.Tensor], step: int) -> None:
    for name, tensor in tensors.items():
        # A finite sum proves that all numbers are, at a tenth of the cost. It can overflow, so then
        # check each number.
        if not tensor.sum().isfinite() and not tensor.isfinite().all():
            raise DivergedError(
                f"step {step}: {name} is no longer finite, so this step is not saved",
                hint="resume from the checkpoint before it with a lower training.learning_rate",
            )


def _size(tensors: Mapping[str, torch.Tensor]) -> int:
    """Return the size on disk in bytes; a tensor with two names is written once."""
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors.values()}.values())


def optimizer_tensors(state: TrainState) -> dict[str, torch.Tensor]:
    """Return AdamW's moments by name and kind, such as ``transformer.wte.weight|exp_avg``."""
    names = {id(parameter): name for name, parameter in state.model.named_parameters()}
    tensors = {}
    for parameter, moments in state.optimizer.state.items():
        for kind, value in moments.items():
            tensors[f"{names[id(parameter)]}|{kind}"] = (
                torch.as_tensor(value).detach().cpu().contiguous()
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
    order = [names[id(parameter)] for group in groups for parameter in group["params"]]
    index = {name: position for position, name in enumerate(order)}
    loaded: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, kind = key.rpartition("|")
        loaded.setdefault(index[name], {})[kind] = tensor
    state.optimizer.load_state_dict(
        {"state": loaded, "param_groups": state.optimizer.state_dict()["param_groups"]}
    )
