"""Checks that all processes of a world have the same config, versions, data and batching."""

from __future__ import annotations

from convo_cli import __version__
from convo_cli.config.schema import DATA_SETS, RunConfig
from convo_cli.errors import ChangedError, UsageError
from convo_cli.runs.provenance.changes import as_json, leaves
from convo_cli.runs.provenance.data_files import DataFiles
from convo_cli.runs.provenance.run_info import RunInfo, installed_packages
from convo_cli.runs.provenance.same_values import require_same_values
from convo_cli.training.run_parts import Parts
from convo_cli.world import World

_ONE_KIND = "use machines of one kind, or set training.packing=off and training.precision=fp32"


def require_same_config(world: World, config: RunConfig) -> None:
    """Raise UsageError if a process has another config, or other versions, than rank 0."""
    if world.size == 1:
        return
    values = {key: as_json(value) for key, value in leaves(config.model_dump(mode="json"))}
    versions = {"convo": __version__, **installed_packages(config)}
    require_same_values(
        world, {**values, **versions}, UsageError, "give every process the same config and packages"
    )


def require_same_parts(world: World, files: DataFiles | RunInfo, parts: Parts) -> None:
    """Raise if a process has other data (ChangedError) or another batching than rank 0."""
    if world.size == 1:
        return
    data = {
        f"SHA-256 of data.{name}": " ".join(file.sha256 for file in getattr(files, name))
        for name in DATA_SETS
    }
    require_same_values(world, data, ChangedError, "give every process the same data files")
    execution = parts.execution
    chosen = {"batching": execution.batching, "precision": execution.precision}
    require_same_values(world, chosen, UsageError, _ONE_KIND)
