"""Paths relative to the run directory, so that a run, its data and its base can move together.

Such paths also do not reveal the user's home folder.
"""

from __future__ import annotations

import os
from pathlib import Path

from convo_cli.config.reading.building import NOT_TEXT
from convo_cli.config.schema import DATA_SETS, RunConfig
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.provenance.data_files import DataFiles
from convo_cli.runs.provenance.run_info import BaseModelFiles


def movable_config(config: RunConfig, run: RunDirectory) -> RunConfig:
    """Return the config with data paths relative to the run directory, as `load` reads them."""
    paths = {
        key: tuple(_relative(path, run) for path in getattr(config.data, key)) for key in DATA_SETS
    }
    return config.model_copy(update={"data": config.data.model_copy(update=paths)})


def movable_files(files: DataFiles, run: RunDirectory) -> DataFiles:
    """Return the data files with paths relative to the run directory."""
    return DataFiles(
        *(
            tuple(file.model_copy(update={"path": _relative(file.path, run)}) for file in part)
            for part in files
        )
    )


def movable_base(files: BaseModelFiles | None, run: RunDirectory) -> BaseModelFiles | None:
    """Return the base model with its path from the run directory, unless it is from a hub."""
    if files is None or files.commit is not None:
        return files
    return files.model_copy(update={"from_run": _relative(files.source, run)})


def _relative(path: str, run: RunDirectory) -> str:
    """Return the path from the run directory.

    If a folder on the way has a name that is not text, return the path as given, or else the file
    name alone.
    """
    absolute = Path(path).resolve()
    try:
        relative = Path(os.path.relpath(absolute, run.path.resolve())).as_posix()
    except ValueError:  # another drive
        return str(absolute)
    return next((way for way in (relative, path) if not NOT_TEXT.search(way)), Path(path).name)
