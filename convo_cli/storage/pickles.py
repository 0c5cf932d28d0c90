"""Weights in pickles: how convo recognises them, and the commands that convert them.

Opening a pickle can run code, so convo never does. The commands run in the user's own hands, with
transformers and torch alone; `torch.load(weights_only=True)` runs no code of the file. They write a
folder with safetensors, which convo opens. docs/old-weights.md explains them.
"""

from __future__ import annotations

import itertools
from pathlib import Path

from convo_cli.errors import ModelError
from convo_cli.storage.converters import (
    FILE_SCRIPT,
    FOLDER_SCRIPT,
    HUB_SCRIPT,
    conversion,
    free_name,
)
from convo_cli.storage.files import read_file
from convo_cli.storage.sealed import MANIFEST_FILE
from convo_cli.wording import on_one_line

_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
_OTHER_SUFFIXES = (".pkl", ".pickle")
_NOT_WEIGHTS = ("adapter_", "training_args", "optimizer", "scheduler", "scaler", "rng_state")
"""How names of files begin that trainers write beside the weights."""
_PLACES = ("", "weights", "checkpoints", "version_*/checkpoints", "lightning_logs/*/checkpoints")
"""Folders of the weights: of multi-turn-chatbot-GPT2, and of PyTorch Lightning."""
_BASE_KEYS = ("pretrained_model", "pretrained_model_or_path")
_CONFIGS = ("args.yaml", "config.yaml")
_NO_BASE = ("", "null", "~")
_LONGEST_BASE = 1000  # characters of a path or hub id
_MAX_CONFIG_BYTES = 2**18
_MAX_FILES = 1000


def require_no_pickle(path: Path) -> None:
    """Raise ModelError if a path is a pickle, or a folder whose only weights are pickles."""
    if (weights := _find_pickle(path)) is None:
        return
    what = (
        f"its weights are in {on_one_line(str(weights.relative_to(path)))}, a pickle"
        if weights != path
        else "a pickle"
    )
    is_of_transformers = weights.name.startswith("pytorch_model")
    if is_of_transformers and (weights.parent / "config.json").is_file():
        hint = conversion(FOLDER_SCRIPT, weights.parent, free_name(weights.parent))
    elif weights.suffix in _SUFFIXES:
        hint = conversion(FILE_SCRIPT, weights, _base_of(weights), free_name(weights))
    else:
        hint = "give the folder of a model"
    if is_of_transformers and (weights.parent / MANIFEST_FILE).is_file():
        what = f"an export of --format legacy; {what}"
        hint = f"export the run again without --format legacy; without the run, {hint}"
    raise ModelError(
        f"{path}: {what}, which can run code when it is opened, so convo never opens it", hint=hint
    )


def no_weights_on_hub(hub_id: str) -> ModelError:
    """Return the error that a model of the hub has no safetensors; it may have a pickle."""
    name = Path(hub_id).name
    return ModelError(
        f"{hub_id}: no model.safetensors on the hub",
        hint="if its weights are in pytorch_model.bin: "
        + conversion(HUB_SCRIPT, hub_id, free_name(Path(name))),
    )


def _find_pickle(path: Path) -> Path | None:
    """Return the file of pickled weights at a path; None for a folder with safetensors."""
    if not path.is_dir():
        is_pickle = path.suffix in (*_SUFFIXES, *_OTHER_SUFFIXES) and path.is_file()
        return path if is_pickle else None
    if next(path.glob("*.safetensors"), None):
        return None
    for place in _PLACES:
        files = itertools.islice(path.glob(f"{place}/*" if place else "*"), _MAX_FILES)
        found = [
            file
            for file in files
            if file.suffix in _SUFFIXES
            and file.is_file()
            and not file.name.startswith(_NOT_WEIGHTS)
        ]
        if found:  # of several, the best by loss, or the first part of the weights
            return min(found, key=lambda file: ("loss" not in file.name, file.name))
    return None


def _base_of(weights: Path) -> str:
    """Return the model that weights were trained from, as the config beside them states it."""
    if (weights.parent / "config.json").is_file():
        return str(weights.parent)
    for file in (weights.parent.parent / name for name in _CONFIGS):
        try:
            lines = read_file(file, _MAX_CONFIG_BYTES).decode(errors="replace").splitlines()
        except OSError:
            continue
        for key, _, value in (line.partition(":") for line in lines):
            base = value.partition(" #")[0].strip().strip("\"'")
            if key.strip() in _BASE_KEYS and base not in _NO_BASE and len(base) <= _LONGEST_BASE:
                return base
    return "gpt2"
