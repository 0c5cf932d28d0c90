"""config.yaml and run.json of a run, with which a resume notices changes.

run.json holds versions, hashes and the config, but the config is read from config.yaml. That file
has a seal, which shows changes by anything but `convo resume --set`.
"""

from __future__ import annotations

import hashlib
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Literal
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from convo_cli import __version__
from convo_cli.config.load import SEAL, dump_config, load_config
from convo_cli.config.schema import RunConfig
from convo_cli.errors import CheckpointError
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.provenance.data_files import DataFile, DataFiles
from convo_cli.runs.provenance.execution import Change, Execution
from convo_cli.runs.provenance.git import GitState
from convo_cli.storage.atomic import write_file
from convo_cli.storage.files import UnsafeFileError, only_regular, read_file, require_regular
from convo_cli.storage.sealed import file_sha256
from convo_cli.unseen import escape_unseen

_PACKAGES = ("torch", "transformers", "tokenizers", "sentencepiece", "numpy", "jinja2")
NUMERIC = ("torch", "transformers", "tokenizers", "numpy", "jinja2", "peft")
"""Packages that affect the bits: arithmetic, ids, order of examples, rendering of templates."""
_MODEL_FILES = ("*.safetensors", "*.json")


class BaseModelFiles(BaseModel):
    """The pretrained model that a run started from: its files by name, with their SHA-256."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    commit: str | None
    """The commit of a hub id."""
    sha256: dict[str, str]
    from_run: str | None = None
    """The path of a folder from the run directory, so that both can be moved together."""

    def folder(self, run: RunDirectory) -> Path:
        """Return the folder of a base that is not from a hub; it may be missing."""
        if self.from_run is None:
            return Path(self.source)
        return (run.path / self.from_run).resolve()


def new_run_id() -> str:
    """Return an id that no other run has."""
    return uuid4().hex


class Parent(BaseModel):
    """The run that a fork continues, and the checkpoint that the fork started from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run_id: str
    name: str
    step: int


class RunInfo(BaseModel):
    """The content of run.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    run_id: str = Field(default_factory=new_run_id)
    """Also stored in every checkpoint, so that a checkpoint of another run is recognised."""
    parent: Parent | None = None
    """The parent of a fork; else null."""
    convo: str
    python: str
    packages: dict[str, str]
    execution: Execution
    git: GitState | None
    base_model: BaseModelFiles | None
    train: tuple[DataFile, ...]
    validation: tuple[DataFile, ...]
    test: tuple[DataFile, ...] = ()
    config: RunConfig
    max_steps: int
    """Length of the run in steps.

    Like config, versions and execution, it is that of the last start or resume.
    """
    changes: tuple[Change, ...] = ()
    """Changes by resumes, each with its step."""
    checksum: str = ""
    """Checksum of all other fields, as convo wrote them."""

    @property
    def micro_batch_size(self) -> int | None:
        """The examples in one forward pass; None: all examples of the step."""
        number = self.config.training.micro_batch_size
        # Earlier versions of convo store no number with the execution.
        return number if isinstance(number, int) else self.execution.micro_batch_size

    @property
    def is_intact(self) -> bool:
        """Return whether the content, read from a file, is as convo wrote it.

        Only fields in the file count, because earlier versions of convo had fewer. No manifest
        covers run.json.
        """
        return self.checksum == self._sum(is_read=True)

    def sealed(self) -> RunInfo:
        """Return the same content with its checksum."""
        return self.model_copy(update={"checksum": self._sum(is_read=False)})

    def _sum(self, *, is_read: bool) -> str:
        content = self.model_dump_json(exclude={"checksum"}, exclude_unset=is_read)
        return hashlib.sha256(content.encode()).hexdigest()


def read_base_model(source: str, folder: Path) -> BaseModelFiles:
    """Hash the files of a pretrained model; ``folder`` is the local folder of a hub id."""
    files = sorted(file for pattern in _MODEL_FILES for file in folder.glob(pattern))
    # A path into the hub's cache is a folder like any other: it is private, and may be moved.
    is_hub_id = folder.parent.name == "snapshots" and not Path(source).is_dir()
    commit = folder.name if is_hub_id else None
    return BaseModelFiles(
        source=source,
        commit=commit,
        sha256={file.name: file_sha256(file.resolve()) for file in files},
    )


def installed_packages(config: RunConfig | None = None) -> dict[str, str]:
    """Return the versions of the packages that a run depends on; of peft if the config needs it."""
    extra = ("peft",) if config is not None and config.model.lora is not None else ()
    return {name: version(name) for name in (*_PACKAGES, *extra)}


def make_run_info(
    config: RunConfig,
    data: DataFiles,
    *,
    execution: Execution,
    git: GitState | None,
    base_model: BaseModelFiles | None,
    max_steps: int,
) -> RunInfo:
    """Return run.json for a run that begins now, on this machine."""
    return RunInfo(
        convo=__version__,
        python=platform.python_version(),
        packages=installed_packages(config),
        execution=execution,
        git=git,
        base_model=base_model,
        **data._asdict(),
        config=config,
        max_steps=max_steps,
    )


def write_provenance(run: RunDirectory, info: RunInfo) -> None:
    """Write config.yaml, sealed, and then run.json."""
    write_file(run.config, sealed_config(dump_config(info.config).encode()))
    write_file(run.info, escape_unseen(info.sealed().model_dump_json(indent=2)) + "\n")


def sealed_config(text: bytes) -> bytes:
    """Return config.yaml of a run: the text of the config, below two lines with its SHA-256."""
    seal = (
        f"{SEAL}{hashlib.sha256(text).hexdigest()}\n"
        "# To change it: convo resume RUN_DIR --set KEY=VALUE\n"
    )
    return seal.encode() + text


def read_config(run: RunDirectory) -> RunConfig:
    """Read config.yaml; CheckpointError if it is missing or special, ConfigError if not valid."""
    if not os.path.lexists(run.config):
        raise CheckpointError(
            f"{run.config}: missing from its run", hint="restore it from a copy of the run"
        )
    try:
        require_regular(run.config)
    except UnsafeFileError as error:
        raise CheckpointError(f"{run.config}: {error.strerror}", hint=error.hint) from error
    return load_config(run.config, opener=only_regular)


def read_run_info(run: RunDirectory) -> RunInfo:
    """Read run.json; CheckpointError if it is missing or not in convo's form."""
    try:
        return RunInfo.model_validate_json(read_file(run.info))
    except (OSError, ValidationError) as error:
        if isinstance(error, ValidationError):
            reason = error.errors()[0]["msg"]
        elif isinstance(error, UnsafeFileError):
            reason = f"it is {error.kind}"
        else:
            reason = str(error.strerror)
        raise CheckpointError(
            f"{run.info}: cannot be read ({reason}), so convo cannot check if the data changed",
            hint="restore it from a copy of the run",
        ) from error
