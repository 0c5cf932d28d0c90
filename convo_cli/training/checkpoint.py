"""A checkpoint: a complete Hugging Face folder, plus the optimizer and the run's progress.

It opens in `convo chat` and in plain transformers as it is, and holds all that `resume` needs. Nothing in it can run
code: weights and optimizer are safetensors, the rest is JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from convo_cli.errors import CheckpointError, DivergedError
from convo_cli.events import CheckpointSaved, Report
from convo_cli.model.build import save_model
from convo_cli.runs.atomic import publish_directory
from convo_cli.runs.checkpoint import STATE_FILE, SavedState, point_and_prune, read_state
from convo_cli.runs.layout import RunDirectory
from convo_cli.text.contract import save_encoder
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.training.state import TrainState

OPTIMIZER_FILE = "optimizer.safetensors"


def save_checkpoint(
    run: RunDirectory, state: TrainState, encoder: DialogueEncoder, *, spiece: bytes | None, keep: int, report: Report
) -> None:
    """Publish the state as a checkpoint, point last and best at the right ones, and delete those no longer wanted.

    Raises DivergedError where a weight or a moment of the optimizer is not finite, and then writes nothing.
    """
    moments = _optimizer_tensors(state)
    _require_finite({**dict(state.model.named_parameters()), **moments}, state.progress.step)

    def fill(folder: Path) -> None:
        save_model(state.model, folder)
        save_encoder(encoder, folder, spiece=spiece)
        save_file(moments, folder / OPTIMIZER_FILE)
        saved = SavedState(progress=state.progress, scaler=state.scaler.state_dict())
        (folder / STATE_FILE).write_text(saved.model_dump_json(indent=2) + "\n", encoding="utf-8")

    path = run.checkpoint(state.progress.step)
    publish_directory(path, fill)
    labels = point_and_prune(run, keep=keep)
    report(CheckpointSaved(state.progress.step, path, tuple(label for label, best in labels.items() if best == path)))


def restore_state(path: Path, state: TrainState) -> None:
    """Put optimizer, scaler and progress of a checkpoint into a state whose model was loaded from it."""
    saved = read_state(path)
    file = path / OPTIMIZER_FILE
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file}: cannot be read ({error})") from error
    _load_optimizer(state, tensors, file)
    if state.scaler.is_enabled() and saved.scaler:
        state.scaler.load_state_dict(dict(saved.scaler))
    state.progress = saved.progress


def _require_finite(tensors: Mapping[str, torch.Tensor], step: int) -> None:
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise DivergedError(
                f"step {step}: {name} is not finite any more, so this step is not saved",
                hint="resume from the checkpoint before it with a lower training.learning_rate",
            )


def _optimizer_tensors(state: TrainState) -> dict[str, torch.Tensor]:
    """AdamW's moments by parameter name and kind, such as ``transformer.wte.weight|exp_avg``."""
    names = {id(parameter): name for name, parameter in state.model.named_parameters()}
    tensors = {}
    for parameter, moments in state.optimizer.state.items():
        for kind, value in moments.items():
            tensors[f"{names[id(parameter)]}|{kind}"] = torch.as_tensor(value).detach().cpu().contiguous()
    return tensors


def _load_optimizer(state: TrainState, tensors: Mapping[str, torch.Tensor], file: Path) -> None:
    parameters = dict(state.model.named_parameters())
    order = [id(parameter) for group in state.optimizer.param_groups for parameter in group["params"]]
    index = {identity: position for position, identity in enumerate(order)}
    loaded: dict[int, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        name, _, kind = key.rpartition("|")
        parameter = parameters.get(name)
        if parameter is None or (kind != "step" and tensor.shape != parameter.shape):
            raise CheckpointError(f"{file}: holds {key} {tuple(tensor.shape)}, which does not fit the model")
        loaded.setdefault(index[id(parameter)], {})[kind] = tensor
    state.optimizer.load_state_dict({"state": loaded, "param_groups": state.optimizer.state_dict()["param_groups"]})
