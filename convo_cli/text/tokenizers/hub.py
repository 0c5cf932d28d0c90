"""Lookup of a model's folder: the folder that the user names, or the local copy of a hub id."""

from __future__ import annotations

from pathlib import Path

from convo_cli.errors import ModelError
from convo_cli.storage.foreign_files import require_harmless

_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.md"]
"""Files of a model, its tokenizer and an export of convo; no pickle, no code."""
_NO_FILES = ["*/*", "*[\x00-\x1f\x7f-\x9f]*"]
"""Folders, and names that would control the terminal on which huggingface_hub draws its bars."""


def local_folder(source: str, revision: str | None = None) -> Path:
    """Return the folder that `find_folder` finds; ModelError if it contains something that no model
    has.
    """
    folder = find_folder(source, revision)
    require_harmless(folder)
    return folder


def find_folder(source: str, revision: str | None = None) -> Path:
    """Return the folder of this name, else that of the hub id, downloaded if it is not in the cache
    yet.

    Raises ModelError if there is neither; without a network, at once. The content of the folder is
    not checked.
    """
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(
            snapshot_download(
                source, revision=revision, allow_patterns=_FILES, ignore_patterns=_NO_FILES
            )
        )
    except (
        Exception
    ) as error:  # the disk, the network and huggingface_hub have a dozen types for one mistake
        if isinstance(error, (HFValidationError, RepositoryNotFoundError)):
            reason = "nor a model on the hub (or it is private: hf auth login)"
        elif isinstance(error, LocalEntryNotFoundError):
            reason = "and as a hub id it is not in the local cache, nor can the hub be reached"
        else:
            reason = (
                "and as a hub id it cannot be downloaded "
                f"({(str(error) or type(error).__name__).splitlines()[0]})"
            )
        hint = "give the path of a folder, or another hub id"
        raise ModelError(f"{source}: not a folder here, {reason}", hint=hint) from error
