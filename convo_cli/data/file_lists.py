"""Files that an entry of a config names: a path, the data files of a folder, or a pattern's."""

from __future__ import annotations

import glob
import os
from pathlib import Path

from convo_cli.config.reading.building import NOT_TEXT
from convo_cli.errors import UsageError

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
"""Ends of the names of the data files in a folder."""


def files_of(entry: str) -> list[str]:
    """Return the files that an entry names, in the order of their names.

    UsageError if a folder has no data file, a pattern matches no file, or a config cannot hold one
    of the names. Any other entry is returned as it is, and so is a file with a pattern as its name.
    """
    if os.path.isdir(entry):  # noqa: PTH112  (Path.is_dir raises for some paths)
        found = _in_folder(entry)
        if not found:
            raise UsageError(
                f"{entry} is a directory without a data file ({', '.join(SUFFIXES)})",
                hint="give a file, or a pattern such as data/*.json",
            )
    elif glob.has_magic(entry) and not os.path.lexists(entry):
        found = sorted(glob.glob(entry, recursive=True))  # noqa: PTH207  (Path.glob refuses absolute patterns)
        if not found:
            raise UsageError(
                f"no file matches {entry}", hint=f"check the pattern; convo looked in {Path.cwd()}"
            )
    else:
        return [entry]
    if odd := next((path for path in found if NOT_TEXT.search(path)), None):
        raise UsageError(f"a config cannot hold the file name {odd!r}", hint="rename the file")
    return found


def _in_folder(folder: str) -> list[str]:
    try:
        files = sorted(Path(folder).iterdir())
    except OSError as error:
        raise UsageError(f"{folder} cannot be read: {error.strerror}") from None
    names = {str(file): file.name.lower() for file in files}
    return [file for file, name in names.items() if name.endswith(SUFFIXES) and name[0] != "."]
