"""Rows of a source: which of its files are tables or JSON, and the dialogues in them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from convo_cli.errors import UsageError, typeable
from convo_cli.importers.dumps.arrow_tables import read_arrow_rows
from convo_cli.importers.dumps.delimited import read_delimited_rows
from convo_cli.importers.dumps.row_shapes import is_known, read_rows
from convo_cli.importers.json_values import iter_values
from convo_cli.importers.messages import Counts
from convo_cli.importers.source_files import Source

_PACKED = (".gz", ".zst")
_DELIMITED = (".csv", ".tsv", ".tab")
_ARROW = (".parquet", ".arrow", ".feather")
_JSON = (".json", ".jsonl", ".ndjson")
_SHARD = re.compile(r"(.*?)-[0-9]{5}-of-[0-9]{5}(\.[a-z.]{1,16})", re.DOTALL)
_MAX_SHOWN = 12


def is_delimited(source: Source) -> bool:
    return bool(_files(source, _DELIMITED, ()))


def read_delimited(source: Source, counts: Counts) -> Iterator[Any]:
    """Yield the dialogues of a CSV or TSV table."""
    rows_of = partial(read_delimited_rows, counts=counts)
    return _read(source, counts, _files(source, _DELIMITED, ()), rows_of)


def is_arrow(source: Source) -> bool:
    return bool(_files(source, _ARROW, ("PAR1", "ARROW1")))


def read_arrow(source: Source, counts: Counts) -> Iterator[Any]:
    """Yield the dialogues of a Parquet or Arrow table."""
    return _read(source, counts, _files(source, _ARROW, ("PAR1", "ARROW1")), read_arrow_rows)


def is_json(source: Source) -> bool:
    return bool(_files(source, _JSON, ("[", "{")))


def read_json(source: Source, counts: Counts) -> Iterator[Any]:
    """Yield the dialogues of a JSON dump: an array, JSON Lines, or an object that holds either."""
    return _read(source, counts, _files(source, _JSON, ("[", "{")), _json_rows)


def _json_rows(source: Source, name: str) -> Iterator[Any]:
    columns = source.given.columns
    values = iter_values(source, name)
    start = list(itertools.islice(values, 2))
    if len(start) == 1 and isinstance(start[0], dict) and not is_known(start[0]):
        values = iter(_inside(start[0]))
        start = []
    for value in itertools.chain(start, values):
        if columns and isinstance(value, dict):
            value = {columns.get(key, key): item for key, item in value.items()}
        yield value


def _inside(value: dict[str, Any]) -> list[Any]:
    """Return the rows in an object: its only list, or its values if each is an object."""
    lists = [item for item in value.values() if isinstance(item, list) and item]
    if len(lists) == 1:
        return lists[0]
    has_objects = bool(value) and all(isinstance(item, dict) for item in value.values())
    return list(value.values()) if has_objects else [value]


def _files(source: Source, suffixes: tuple[str, ...], starts: tuple[str, ...]) -> list[str]:
    """Return the files with such a name; a single file may have such a beginning instead."""
    endings = tuple(suffix + packed for suffix in suffixes for packed in ("", *_PACKED))
    files = [name for name in source.names if name.lower().endswith(endings)]
    if source.is_single and not files:
        head = source.head_text(source.names[0]).lstrip()
        return list(source.names) if starts and head.startswith(starts) else []
    return files


def _read(
    source: Source,
    counts: Counts,
    files: list[str],
    rows_of: Callable[[Source, str], Iterator[Any]],
) -> Iterator[Any]:
    _require_one_table(source, files)
    rows = itertools.chain.from_iterable(rows_of(source, name) for name in files)
    return read_rows(rows, source.where, counts, source.given.assistants)


def _require_one_table(source: Source, files: list[str]) -> None:
    """Raise UsageError if there are several tables, unless they are the parts of one."""
    shards = {(found[1], found[2]) for name in files if (found := _SHARD.fullmatch(name))}
    if len(files) <= 1 or (len(shards) == 1 and all(map(_SHARD.fullmatch, files))):
        return
    shown = ", ".join(files[:_MAX_SHOWN]) + (" and more" if len(files) > _MAX_SHOWN else "")
    raise UsageError(
        f"{source.where}: it holds {len(files):,} tables: {shown}",
        hint=f"choose one: --only {typeable(files[0])}",
    )
