"""run.json: with what and on what a run began, so that going on with something else is noticed."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from convo_cli import __version__
from convo_cli.config.schema import DataConfig
from convo_cli.errors import ChangedError, CheckpointError, UsageError
from convo_cli.runs.atomic import write_file
from convo_cli.runs.layout import RunDirectory

_PACKAGES = ("torch", "transformers", "tokenizers", "sentencepiece", "numpy")


class DataFile(BaseModel):
    """A data file as it was when the run began."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    sha256: str
    num_lines: int
    """Lines of a plain file, 0 of a packed one."""


class DataFiles(NamedTuple):
    """The data of a run as it is on the disk."""

    train: tuple[DataFile, ...]
    validation: tuple[DataFile, ...]


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


def read_data_files(data: DataConfig) -> DataFiles:
    """Hash every data file; UsageError where one cannot be read."""
    return DataFiles(*(tuple(_data_file(Path(path)) for path in paths) for paths in (data.train, data.validation)))


def write_run_info(run: RunDirectory, data: DataFiles, *, device: str) -> None:
    """Write down versions, device and the data's hashes."""
    info = RunInfo(
        convo=__version__,
        python=platform.python_version(),
        packages={name: version(name) for name in _PACKAGES},
        device=device,
        train=data.train,
        validation=data.validation,
    )
    write_file(run.info, info.model_dump_json(indent=2) + "\n")


def require_same_data(run: RunDirectory, data: DataFiles) -> None:
    """Raise ChangedError where a data file is not, byte for byte, the one the run began with."""
    try:
        info = RunInfo.model_validate_json(run.info.read_bytes())
    except (OSError, ValidationError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.strerror
        raise CheckpointError(
            f"{run.info}: cannot be read ({reason}), so nobody can tell whether the data is the same",
            hint="copy it again from where the run is whole",
        ) from error
    for key, before, after in (("train", info.train, data.train), ("validation", info.validation, data.validation)):
        if len(before) != len(after):
            raise ChangedError(
                f"data.{key} names {len(after)} files, but the run began with {len(before)}",
                hint="name the same files, or start another run",
            )
        for old, new in zip(before, after, strict=True):
            if old.sha256 != new.sha256:
                raise ChangedError(
                    f"{new.path}: not the data that the run began with ({old.path}, SHA-256 {old.sha256[:12]}…, "
                    f"now {new.sha256[:12]}…)",
                    hint="restore the file, or start another run",
                )


def _data_file(path: Path) -> DataFile:
    digest = hashlib.sha256()
    num_lines, last = 0, b"\n"
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
                num_lines += block.count(b"\n")
                last = block[-1:]
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", hint="put the file back, or name where it is now") from error
    is_packed = path.suffix.lower() in (".gz", ".zst")
    return DataFile(
        path=str(path), sha256=digest.hexdigest(), num_lines=0 if is_packed else num_lines + (last != b"\n")
    )
