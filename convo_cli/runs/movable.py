"""Paths of data as a run directory stores them: relative to it, so that run and data move together and name no home."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from convo_cli.config.schema import RunConfig
from convo_cli.runs.layout import RunDirectory
from convo_cli.runs.provenance import DataFile


def movable_config(config: RunConfig, run: RunDirectory) -> RunConfig:
    """The config with its data paths relative to the run directory, as `convo_cli.config.load` reads them there."""
    paths = {key: tuple(_relative(path, run) for path in getattr(config.data, key)) for key in ("train", "validation")}
    return config.model_copy(update={"data": config.data.model_copy(update=paths)})


def movable_files(files: Iterable[DataFile], run: RunDirectory) -> tuple[DataFile, ...]:
    """The data files with paths relative to the run directory."""
    return tuple(file.model_copy(update={"path": _relative(file.path, run)}) for file in files)


def _relative(path: str, run: RunDirectory) -> str:
    absolute = Path(path).resolve()
    try:
        return Path(os.path.relpath(absolute, run.path.resolve())).as_posix()
    except ValueError:  # another drive
        return str(absolute)
