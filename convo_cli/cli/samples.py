"""The sample dialogues that come with convo, copied into the user's folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

FOLDER = "sample_data"
"""Folder of the copies in the working directory; configs name files in it."""
_INSTALLED = Path(__file__).parents[1] / FOLDER
_IN_CHECKOUT = Path(__file__).parents[2] / FOLDER


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
        for sample in (_INSTALLED if _INSTALLED.is_dir() else _IN_CHECKOUT).iterdir():
            if not (copy := Path(FOLDER, sample.name)).exists():
                write_file(copy, sample.read_bytes())
    return True
