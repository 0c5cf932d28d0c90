"""dialogue.json and tokenizer/ of a run directory: copies of files of its checkpoints.

Every checkpoint of a run holds the same contract and tokenizer. The copies are for people and for
other programs, such as transformers; convo itself reads the checkpoints.
"""

from __future__ import annotations

from pathlib import Path

from convo_cli.errors import CheckpointError, DiskError
from convo_cli.runs.checkpoints import STATE_FILE
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.model_folder import DIALOGUE_FILE
from convo_cli.storage.atomic import publish_directory, write_file
from convo_cli.storage.files import copy_file, read_file
from convo_cli.storage.sealed import read_manifest, verify_directory

_OF_THE_MODEL = {STATE_FILE, "generation_config.json"}


def copy_tokenizer(run: RunDirectory, checkpoint: Path) -> bool:
    """Write both copies from a verified checkpoint; False if they are already there and intact.

    config.json is one of the files: transformers uses it to choose the class of the tokenizer.
    """
    contract = read_file(checkpoint / DIALOGUE_FILE)
    if _holds(run, contract):
        return False

    def fill(folder: Path) -> None:
        for name in read_manifest(checkpoint):
            if name not in _OF_THE_MODEL and ".safetensors" not in name:
                copy_file(checkpoint / name, folder / name, is_proven=True)

    publish_directory(run.tokenizer, fill, below=run.path)
    write_file(run.dialogue, contract)
    return True


def _holds(run: RunDirectory, contract: bytes) -> bool:
    """Return whether both copies are intact and of this contract, which names the tokenizer."""
    try:
        verify_directory(run.tokenizer)
        files = (run.dialogue, run.tokenizer / DIALOGUE_FILE)
        return all(read_file(file) == contract for file in files)
    except (CheckpointError, DiskError, OSError):
        return False
