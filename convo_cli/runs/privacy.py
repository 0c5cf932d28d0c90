"""Privacy of a run directory: it is no more readable than its data and base model."""

from __future__ import annotations

from pathlib import Path

from convo_cli.config.schema import RunConfig
from convo_cli.events import Emit, Notice
from convo_cli.runs.directory import RunDirectory
from convo_cli.storage.access import restrict_directory
from convo_cli.storage.atomic import disk_errors


def run_sources(config: RunConfig) -> list[str | Path]:
    """Return the files that a run is derived from: its data, and the weights of a model folder."""
    pretrained = config.model.pretrained
    weights = () if pretrained is None else Path(pretrained).glob("*.safetensors")
    return [*config.data.files, *weights]


def keep_private(run: RunDirectory, allowed: int, emit: Emit) -> None:
    """Give users who cannot read the data no access to the run directory; warn if that fails."""
    with disk_errors(run.path):
        if not restrict_directory(run.path, allowed):
            message = (
                f"{run.path}: other users can read it, although they cannot read all of its data, "
                "and its mode cannot be changed"
            )
            emit(Notice(message, is_warning=True))
