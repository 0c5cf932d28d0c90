"""run.json: with what and on what a run began, so that going on with something else is noticed."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from convo_cli import __version__
from convo_cli.config.schema import DataConfig
from convo_cli.errors import ChangedError, CheckpointError, UsageError
from convo_cli.runs.atomic import file_sha256, write_file
from convo_cli.runs.layout import RunDirectory

_PACKAGES = ("torch", "transformers", "tokenizers", "sentencepiece", "numpy")


class DataFile(BaseModel):
    """A data file as it was when the run began."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    sha256: str


class RunInfo(BaseModel):
    """The content of run.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    convo: str
    python: str
    packages: dict[str, str]
    device: str
    train: tuple[DataFile, ...]
    validation: tuple[DataFile, ...]


def write_run_info(run: RunDirectory, data: DataConfig, *, device: str) -> None:
    """Write down versions, device and the data's hashes."""
    info = RunInfo(
        convo=__version__,
        python=platform.python_version(),
        packages={name: version(name) for name in _PACKAGES},
        device=device,
        train=_files(data.train),
        validation=_files(data.validation),
    )
    write_file(run.info, info.model_dump_json(indent=2) + "\n")


def require_same_data(run: RunDirectory, data: DataConfig) -> None:
    """Raise ChangedError where a data file is not, byte for byte, the one the run began with."""
    try:
        info = RunInfo.model_validate_json(run.info.read_bytes())
    except (OSError, ValidationError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.strerror
        raise CheckpointError(
            f"{run.info}: cannot be read ({reason}), so nobody can tell whether the data is the same",
            hint="copy it again from where the run is whole",
        ) from error
    for key, before, paths in (("train", info.train, data.train), ("validation", info.validation, data.validation)):
        if len(before) != len(paths):
            raise ChangedError(
                f"data.{key} names {len(paths)} files, but the run began with {len(before)}",
                hint="name the same files, or start another run",
            )
        for old, new in zip(before, _files(paths), strict=True):
            if old.sha256 != new.sha256:
                raise ChangedError(
                    f"{new.path}: not the data that the run began with ({old.path}, SHA-256 {old.sha256[:12]}…, "
                    f"now {new.sha256[:12]}…)",
                    hint="restore the file, or start another run",
                )


def _files(paths: Iterable[str]) -> tuple[DataFile, ...]:
    files = []
    for path in paths:
        try:
            files.append(DataFile(path=path, sha256=file_sha256(Path(path))))
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}", hint="put the file back, or name where it is now") from error
    return tuple(files)
