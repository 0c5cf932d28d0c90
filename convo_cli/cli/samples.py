"""The sample dialogues that come with convo, copied into the user's folder."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

FOLDER = "sample_data"
"""Folder of the copies in the working directory; configs name files in it."""


def copy_samples(named: Iterable[str]) -> bool:
    """Create the sample files if one of the ``named`` data files is a sample that does not exist.

    Existing files stay as they are. Returns whether a file was created; DiskError if one cannot be.
    """
    from convo_cli.storage.atomic import disk_errors, make_directory, write_file

    paths = [Path(path) for path in named]
    with disk_errors(Path(FOLDER)):
        if all(path.parent != Path(FOLDER) or path.exists() for path in paths):
            return False
        if not Path(FOLDER).is_dir():
            make_directory(Path(FOLDER))
        for sample in _originals().iterdir():
            if not (copy := Path(FOLDER, sample.name)).exists():
                write_file(copy, sample.read_bytes())
    return True


def _originals() -> Traversable:
    """Return the folder of the samples: inside the installed package, or beside it in a
    checkout.
    """
    package = files("convo_cli")
    installed = package / FOLDER
    return installed if installed.is_dir() else Path(str(package)).parent / FOLDER
