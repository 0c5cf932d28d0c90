"""Checks of model folders to open or to write, by file names alone.

No model is loaded, so most mistakes are reported at once.
"""

from __future__ import annotations

import json
from pathlib import Path

from convo_cli.errors import ModelError, UsageError
from convo_cli.runs.checkpoints import STATE_FILE
from convo_cli.runs.directory import RunDirectory, require_place
from convo_cli.runs.provenance.other_exports import RECEIPT_FILE, require_no_other_export
from convo_cli.storage.files import special_kind
from convo_cli.storage.foreign_files import INDEX, require_harmless, shard_names
from convo_cli.storage.other_models import require_no_other_form
from convo_cli.storage.pickles import no_weights_on_hub, require_no_pickle
from convo_cli.storage.sealed import MANIFEST_FILE, read_manifest

DIALOGUE_FILE = "dialogue.json"
_WEIGHTS = "model.safetensors"
LEGACY_WEIGHTS = "pytorch_model.bin"
"""Weights of `export --format legacy`: a pickle, which convo writes and never opens."""


def require_model_folder(folder: Path) -> None:
    """Raise ModelError if a Hugging Face folder lacks its config or its weights as safetensors."""
    require_harmless(folder)
    require_no_other_export(folder)
    require_no_other_form(folder)
    config = folder / "config.json"
    try:
        values = json.loads(config.read_bytes())
    except FileNotFoundError:
        require_no_pickle(folder)
        raise ModelError(
            f"{config}: not found, so {folder} is not a model folder", hint=_instead_of(folder)
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{config}: not valid JSON ({error})", hint="copy the model again"
        ) from None
    if not isinstance(values, dict) or "model_type" not in values:
        raise ModelError(
            f"{config}: has no model_type", hint="give the folder of a transformers model"
        )
    if any((folder / name).is_file() for name in (_WEIGHTS, INDEX)):
        return
    require_no_pickle(folder)
    kind, _, repository = folder.parent.parent.name.partition("--")
    if folder.parent.name == "snapshots" and kind == "models":
        raise no_weights_on_hub(repository.replace("--", "/", 1))
    raise ModelError(f"{folder}: there is no model.safetensors", hint="copy the model again")


def weight_files(folder: Path) -> set[str]:
    """Return the names of the files from which transformers reads the weights."""
    if (folder / _WEIGHTS).is_file():
        return {_WEIGHTS}
    return {INDEX, *map(str, shard_names(folder / INDEX))}


def require_writable(out: Path, *, force: bool) -> None:
    """Raise UsageError if an export would overwrite anything but an earlier export.

    DiskError if no folder can be created there.
    """
    if out.is_symlink():
        raise UsageError(f"{out}: a symbolic link", hint="give the real folder")
    for parent in out.resolve().parents:
        if (parent / MANIFEST_FILE).is_file() or (
            parent.name == "checkpoints" and RunDirectory(parent.parent).is_run
        ):
            raise UsageError(
                f"{out}: inside {parent}, which must stay unchanged",
                hint="choose another folder",
            )
    if not out.exists():
        require_place(out, hint="choose another folder")
        return
    if not out.is_dir():
        kind = special_kind(out.stat().st_mode) or "a file"
        raise UsageError(f"{out}: not a folder, but {kind}", hint="choose another name")
    content = {path.name for path in out.iterdir()}
    if not content:
        return
    if not force:
        raise UsageError(
            f"{out}: not empty",
            hint="choose another folder, or add --force to replace an earlier export",
        )
    is_export = MANIFEST_FILE in content and content & {DIALOGUE_FILE, RECEIPT_FILE, LEGACY_WEIGHTS}
    if not is_export or STATE_FILE in content:
        raise UsageError(
            f"{out}: not an earlier export, so --force does not replace it",
            hint="choose another folder",
        )
    if foreign := content - {MANIFEST_FILE} - read_manifest(out).keys():
        raise UsageError(
            f"{out}: {min(foreign)} is not part of the export, so --force does not replace it",
            hint="move that file away, or choose another folder",
        )


def _instead_of(folder: Path) -> str:
    run = RunDirectory(folder)
    if steps := run.checkpoint_steps():
        return f"this is a run directory; give one of its checkpoints: {run.checkpoint(steps[-1])}"
    return "give a checkpoint, or an exported or downloaded model"
