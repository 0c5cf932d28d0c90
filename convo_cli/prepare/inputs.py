"""The inputs of preparation as one value: config, hashed data files, cache and emit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from convo_cli.config.schema import RunConfig
from convo_cli.events import Emit
from convo_cli.prepare.cache import Cache
from convo_cli.runs.provenance.data_files import DataFile, DataFiles

_FORMAT = 6  # of what is cached; a change to how text becomes ids and targets needs another number


@dataclass(frozen=True)
class Inputs:
    """Config and data files to prepare, the cache that keeps the result, and the event sink."""

    config: RunConfig
    files: DataFiles
    """The data files of the config, with their hashes."""
    cache: Cache
    emit: Emit

    def reading(self, files: Sequence[DataFile]) -> dict[str, object]:
        """Return the part of a cache key that decides which dialogues are read from the files."""
        data = self.config.data
        return {
            "format": _FORMAT,
            "files": [file.sha256 for file in files],
            "first_speaker": data.first_speaker,
            "speakers": data.speakers.model_dump(),
            "columns": data.columns.model_dump(),
            "reasoning": data.reasoning,
        }
