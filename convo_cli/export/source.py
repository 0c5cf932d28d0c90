"""The checkpoint that is exported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from convo_cli.model.decoding.generator import Generator
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.loaded import LoadedCheckpoint


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint: its files, its model on the CPU in fp32, and the run that it belongs to."""

    folder: Path
    files: tuple[Path, ...]
    """The files that an export may copy: config, tokenizer, dialogue.json, weights."""
    generator: Generator
    """Model and encoder, with the generation defaults of the checkpoint."""
    loaded: LoadedCheckpoint | None
    """The checkpoint in its run; None for another folder."""
    run: RunDirectory | None
    """The run, for its data and scores."""
    base: Path | None = None
    """The folder of an adapter's base."""
    max_shard_bytes: int | None = None
    """The largest file of weights that a format with ``shards`` writes; None for one file."""
