"""Lookup of a model: the folder that the user names, or the local copy of a hub id."""

from __future__ import annotations

from pathlib import Path

from convo_cli.errors import ModelNotFoundError, first_line
from convo_cli.storage.foreign_files import require_harmless

_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.md"]
"""Files of a model, its tokenizer and an export of convo: no pickle, no code."""
_NO_FILES = ["*/*", "*[\x00-\x1f\x7f-\x9f]*"]
"""Folders, and names that would control the terminal on which huggingface_hub draws its bars."""


def local_folder(source: str, revision: str | None = None) -> Path:
    """Return the folder that `find_folder` finds; ModelError if its content may be harmful."""
    folder = find_folder(source, revision)
    require_harmless(folder)
    return folder


def find_folder(source: str, revision: str | None = None) -> Path:
    """Return the folder of this name, or the local copy of the hub id, downloaded if necessary.

    Raises ModelNotFoundError if there is neither; without a network, at once. The content of the
    folder is not checked.
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
        folder = snapshot_download(
            source, revision=revision, allow_patterns=_FILES, ignore_patterns=_NO_FILES
        )
    except Exception as error:  # the network, the disk and huggingface_hub raise a dozen types
        if isinstance(error, (HFValidationError, RepositoryNotFoundError)):
            reason = "the hub has no such model either (if it is private: hf auth login)"
        elif isinstance(error, LocalEntryNotFoundError):
            reason = "it is not in the local cache of the hub, and the hub cannot be reached"
        else:
            reason = f"it cannot be downloaded from the hub ({first_line(error)})"
        hint = "give an existing folder, or another hub id"
        raise ModelNotFoundError(f"{source}: no such folder; {reason}", hint=hint) from error
    return Path(folder)
