"""Worker processes that read the blocks of large files on all CPUs."""

from __future__ import annotations

from concurrent.futures import Future
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, cast

from convo_cli.data.checks.block_reader import BlockReader
from convo_cli.data.checks.exact import LineRules
from convo_cli.data.checks.statistics import BlockStatistics
from convo_cli.worker_processes import Workers

if TYPE_CHECKING:
    from convo_cli.config.schema import DataConfig

MAX_WORKERS = 8
"""One process can cut blocks and add up results for about this many workers."""


class _Speakers(NamedTuple):
    user: tuple[str, ...]
    assistant: tuple[str, ...]
    system: tuple[str, ...]
    keep_names: bool


class _Columns(NamedTuple):
    turns: str | None
    speaker: str | None
    text: str | None
    user: str | None
    assistant: str | None
    system: str | None
    history: str | None


class _Config(NamedTuple):
    """The part of a `DataConfig` that a worker needs; the whole would import pydantic (0.2 s)."""

    speakers: _Speakers
    columns: _Columns
    first_speaker: str
    reasoning: str | None


class _ReadBlock:
    """Callable that reads a block by the rules; a worker gets a copy."""

    def __init__(self, rules: LineRules, max_problems: int) -> None:
        data, names = rules.data_config, rules.data_config.speakers
        speakers = _Speakers(**names.model_dump())
        columns = _Columns(**data.columns.model_dump())
        self._config = _Config(speakers, columns, data.first_speaker, data.reasoning)
        self._train_on, self._max_problems = rules.train_on, max_problems

    @cached_property
    def _reader(self) -> BlockReader:
        config = cast("DataConfig", self._config)
        return BlockReader(LineRules(config, self._train_on), self._max_problems)

    def __call__(self, data: bytes) -> BlockStatistics:
        return self._reader.read(data)


class BlockWorkers(Workers):
    """Workers that read blocks of lines."""

    def __init__(self, rules: LineRules, max_problems: int, number: int) -> None:
        super().__init__(_ReadBlock(rules, max_problems), number)

    def read(self, data: bytes) -> Future[tuple[BlockStatistics] | None]:
        """Read whole lines when a worker is free; the result is None if the worker fails."""
        return self.call(data)
