"""Validation of data files: it reads them as training does, and reports all problems.

`reader` cuts a file into blocks of lines. `block_reader` reads each block, in this process or in
one of the `workers`. `statistics` adds up the blocks in file order and creates the `report`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from convo_cli.config.schema import DataConfig, TrainOn
from convo_cli.data.blocks import Block
from convo_cli.data.checks.block_reader import BlockReader
from convo_cli.data.checks.exact import LineRules
from convo_cli.data.checks.problem_tally import MAX_PROBLEMS, ProblemGroup
from convo_cli.data.checks.report import DataReport
from convo_cli.data.checks.statistics import BlockStatistics, FileStatistics
from convo_cli.data.decompress import STDIN
from convo_cli.data.problems import Problem
from convo_cli.data.reader import check_source, iter_blocks
from convo_cli.events import Emit, Progress, ignore

if TYPE_CHECKING:
    from concurrent.futures import Future

    from convo_cli.data.checks.workers import BlockWorkers
    from convo_cli.data.roles.proposal import Proposal

    _Begun = tuple[Block, BlockStatistics | Future[tuple[BlockStatistics] | None]]

PARALLEL_BYTES = 32 * 2**20
"""Workers start at a file of this size, or once this much is read; below, they save no time."""

_MAX_SENT_BYTES = 2**20
"""A longer block is one long line. This process reads it, so that it is in memory only once."""
_PROGRESS_BYTES = 2**20
_FIRST_BYTES = 32 * 2**20
"""Unpacked bytes of a file that `find_first_errors` reads: half a second at most."""


class FirstErrors(NamedTuple):
    """Errors at the beginning of files, and the mapping that each file probably needs."""

    groups: list[ProblemGroup]
    proposals: dict[str, Proposal]


def validate_files(
    paths: Sequence[str],
    data_config: DataConfig,
    *,
    train_on: TrainOn = "assistant",
    max_problems: int = MAX_PROBLEMS,
    emit: Emit = ignore,
) -> DataReport:
    """Check every line of every file, and the files against each other.

    A dialogue without a target under ``train_on`` is an error. ``max_problems`` limits the listed
    problems of each code and file. A file that cannot be opened raises `UsageError` before anything
    is read.
    """
    for path in paths:
        check_source(path)
    readers = _Readers(LineRules(data_config, train_on), max_problems)
    files = [FileStatistics(path, data_config, max_problems) for path in paths]
    try:
        for statistics in files:
            _read(statistics, readers, emit)
    finally:
        readers.close()
    leaks = [
        leak
        for index, statistics in enumerate(files)
        for earlier in files[:index]
        if (leak := statistics.find_leak(earlier)) is not None
    ]
    return DataReport(tuple(statistics.as_report() for statistics in files), tuple(leaks))


def find_first_errors(
    paths: Sequence[str],
    data_config: DataConfig,
    *,
    train_on: TrainOn = "assistant",
    max_lines: int | None = None,
) -> FirstErrors:
    """Return the errors at the beginning of each file, within the first ``max_lines`` of all files.

    So a bad file is refused at once, and a large good one is not read twice. Errors that only a
    whole file can show are not among them.
    """
    reader = BlockReader(LineRules(data_config, train_on), MAX_PROBLEMS)
    groups: list[ProblemGroup] = []
    proposals: dict[str, Proposal] = {}
    num_left: float = math.inf if max_lines is None else max_lines
    for path in paths:
        statistics = FileStatistics(path, data_config, MAX_PROBLEMS)
        num_bytes = 0
        for block in iter_blocks(path, statistics.note) if num_left > 0 else ():
            part = block if len(block.numbers) <= num_left else block.first(int(num_left))
            statistics.add_block(part, reader.read(part.data))
            num_left -= len(part.numbers)
            num_bytes += len(part.data)
            if num_bytes >= _FIRST_BYTES or num_left <= 0:
                break
        groups += [group for group in statistics.problem_groups() if group.severity == "error"]
        if (proposal := statistics.proposal()) is not None:
            proposals[path] = proposal
    return FirstErrors(groups, proposals)


def _read(statistics: FileStatistics, readers: _Readers, emit: Emit) -> None:
    file = statistics.file
    check_source(file)  # again, because reading the files before it may take minutes
    num_bytes = 0 if file == STDIN else Path(file).stat().st_size
    last_emitted = 0
    emit(Progress(f"reading {file}", 0, num_bytes or None, "bytes"))
    for item in readers.read(file, num_bytes):
        if isinstance(item, Problem):
            statistics.note(item)
            continue
        block, found = item
        statistics.add_block(block, found)
        if block.end - last_emitted >= _PROGRESS_BYTES:
            last_emitted = block.end
            emit(Progress(f"reading {file}", block.end, num_bytes or None, "bytes"))
    statistics.finish()


class _Readers:
    """Reads blocks, those of large files in workers, and returns the results in file order."""

    def __init__(self, rules: LineRules, max_problems: int) -> None:
        self._rules = rules
        self._max_problems = max_problems
        self._here = BlockReader(rules, max_problems)
        self._workers: BlockWorkers | None = None
        self._max_waiting = 0
        self._num_read = 0

    def read(self, file: str, num_bytes: int) -> Iterator[Problem | tuple[Block, BlockStatistics]]:
        """Yield each block with its statistics, and the problems of lines that are in no block."""
        if num_bytes >= PARALLEL_BYTES:
            self._start()
        waiting: deque[Problem | _Begun] = deque()
        for block in iter_blocks(file, waiting.append):
            waiting.append((block, self._begin(block.data)))
            while len(waiting) > self._max_waiting:
                yield self._finished(waiting.popleft())
        yield from map(self._finished, waiting)

    def close(self) -> None:
        if self._workers is not None:
            self._workers.close()

    def _start(self) -> None:
        if self._workers is None:
            from convo_cli.cpus import num_cpus
            from convo_cli.data.checks.workers import MAX_WORKERS, BlockWorkers

            if (number := min(num_cpus(), MAX_WORKERS)) > 1:
                self._workers = BlockWorkers(self._rules, self._max_problems, number)
                self._max_waiting = 2 * number + 2  # so that no worker waits for its next block

    def _begin(self, data: bytes) -> BlockStatistics | Future[tuple[BlockStatistics] | None]:
        self._num_read += len(data)
        if self._num_read >= PARALLEL_BYTES:
            self._start()
        if self._workers is not None and self._workers.is_ready and len(data) <= _MAX_SENT_BYTES:
            return self._workers.read(data)
        return self._here.read(data)

    def _finished(self, item: Problem | _Begun) -> Problem | tuple[Block, BlockStatistics]:
        if isinstance(item, Problem):
            return item
        block, found = item
        if not isinstance(found, BlockStatistics):
            answer = found.result()
            found = self._here.read(block.data) if answer is None else answer[0]
        return block, found
