"""Reads data files as training would and reports on all of them instead of stopping at the first problem.

A block of lines at a time: `reader` cuts it, `bulk` reads the good lines together, `statistics` has `exact` read each
of the others and adds everything up to a `report`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from convo_cli.config.schema import DataConfig, TrainOn
from convo_cli.data.checks.bulk import BulkReader
from convo_cli.data.checks.exact import LineRules
from convo_cli.data.checks.report import DataReport
from convo_cli.data.checks.statistics import FileTally
from convo_cli.data.decompress import STDIN
from convo_cli.data.reader import check_source, iter_blocks
from convo_cli.events import Emit, Event, Progress

MAX_PROBLEMS = 5
"""Problems listed of each code and file; all are counted."""

_PROGRESS_BYTES = 2**20


def _tell_nobody(event: Event) -> None:
    pass


def validate_files(
    paths: Sequence[str],
    data_config: DataConfig,
    *,
    train_on: TrainOn = "assistant",
    max_problems: int = MAX_PROBLEMS,
    emit: Emit = _tell_nobody,
) -> DataReport:
    """Check every line of every file, and the files against each other.

    A dialogue with nothing to learn under ``train_on`` is an error. ``max_problems`` limits the problems listed of
    each code and file. A file that cannot be opened raises `UsageError` before anything is read.
    """
    for path in paths:
        check_source(path)
    rules = LineRules(data_config, train_on)
    tallies = [_read(path, rules, max_problems, emit) for path in paths]
    leaks = [
        leak
        for index, tally in enumerate(tallies)
        for earlier in tallies[:index]
        if (leak := tally.find_leak(earlier)) is not None
    ]
    return DataReport(tuple(tally.as_report() for tally in tallies), tuple(leaks))


def _read(file: str, rules: LineRules, max_problems: int, emit: Emit) -> FileTally:
    """Read a block of lines at a time: the good ones together, each of the others by itself."""
    num_bytes = 0 if file == STDIN else Path(file).stat().st_size
    told = 0
    tally = FileTally(file, rules, max_problems)
    bulk = BulkReader(rules)
    for block in iter_blocks(file, tally.note):
        tally.add_block(block, bulk.read(block.data))
        if block.end - told >= _PROGRESS_BYTES:
            told = block.end
            emit(Progress(f"reading {file}", block.end, num_bytes or None, "bytes"))
    for skeleton, count in bulk.skeletons():
        tally.add_skeleton(skeleton, count)
    for key, texts in bulk.unread():
        tally.add_unread(key, texts.num_texts, texts.num_characters)
    tally.finish()
    return tally
