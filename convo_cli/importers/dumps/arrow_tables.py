"""Rows of Parquet and Arrow (feather) files, read by pyarrow, a few rows at a time.

Only the columns that convo knows are read. Values are plain: no type of a file is ever turned into
code. Memory has a limit while pyarrow reads, because a page of a few bytes can stand for gigabytes.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

from convo_cli.errors import DataError, UsageError, first_line
from convo_cli.importers.dumps.row_shapes import (
    is_known,
    known_columns,
    renamed,
    require_columns,
    unknown,
)
from convo_cli.importers.source_files import Source

MAX_COLUMNS = 1000
MAX_BATCH_BYTES = 2**28
"""Unpacked bytes of the rows that are read at once, 256 MiB."""
_BATCH_ROWS = 64
_MEMORY_BYTES = 2**32
"""Address space that pyarrow may add, 4 GiB."""
_MAX_METADATA_ITEMS = 100_000
_PARQUET, _ARROW_FILE = b"PAR1", b"ARROW1"
_DAMAGED_HINT = "copy or download it again, or export it as JSON Lines"


def read_arrow_rows(source: Source, name: str) -> Iterator[dict[str, Any]]:
    """Yield the rows as objects."""
    where, columns = source.shown(name), source.given.columns
    _require_pyarrow(where)
    with source.open_whole(name) as file, _limited_memory():
        try:
            if file.read(4) == _PARQUET:
                batches = _parquet(file, where, columns)
            else:
                batches = _arrow(file, where, columns)
            for batch, names in batches:
                if batch.nbytes > MAX_BATCH_BYTES:
                    size = f"{MAX_BATCH_BYTES // 2**20} MiB"
                    raise DataError(
                        f"{where}: refused: a few of its rows unpack to more than {size}"
                    )
                for row in batch.rename_columns(names).to_pylist():
                    yield _plain(row)
        except MemoryError:
            raise DataError(
                f"{where}: refused: a few of its rows need more than "
                f"{_MEMORY_BYTES // 2**30} GiB of memory"
            ) from None
        except (OSError, ValueError, KeyError, NotImplementedError, TypeError) as error:
            raise DataError(
                f"{where}: the table cannot be read: {first_line(error)}", hint=_DAMAGED_HINT
            ) from None


def _parquet(
    file: BinaryIO, where: str, columns: Mapping[str, str]
) -> Iterator[tuple[Any, list[str]]]:
    from pyarrow import parquet

    table = parquet.ParquetFile(
        file,
        buffer_size=2**16,  # a column is read in parts, not at once
        pre_buffer=False,
        thrift_container_size_limit=_MAX_METADATA_ITEMS,
    )
    names = _chosen(table.schema_arrow, where, columns)
    for batch in table.iter_batches(_BATCH_ROWS, columns=list(names), use_threads=False):
        yield batch, [names[name] for name in batch.schema.names]


def _arrow(
    file: BinaryIO, where: str, columns: Mapping[str, str]
) -> Iterator[tuple[Any, list[str]]]:
    import pyarrow

    file.seek(0)
    is_file = file.read(len(_ARROW_FILE)) == _ARROW_FILE
    file.seek(0)
    opened = pyarrow.ipc.open_file(file) if is_file else pyarrow.ipc.open_stream(file)
    names = _chosen(opened.schema, where, columns)
    batches = map(opened.get_batch, range(opened.num_record_batches)) if is_file else opened
    for batch in batches:
        batch.validate(full=True)  # or offsets of a forged file may lead out of it
        chosen = batch.select(list(names))
        for start in range(0, chosen.num_rows, _BATCH_ROWS):
            yield chosen.slice(start, _BATCH_ROWS), [names[name] for name in chosen.schema.names]


def _chosen(schema: Any, where: str, columns: Mapping[str, str]) -> dict[str, str]:
    """Return the columns to read, each with the name that convo reads."""
    names = schema.names
    if len(names) > MAX_COLUMNS:
        raise DataError(f"{where}: it has {len(names):,} columns; at most {MAX_COLUMNS:,} are read")
    require_columns(columns, names, where)
    named = {**renamed(names), **columns}
    if len(set(named.values())) < len(names):
        raise DataError(f"{where}: two columns have the same name", hint="rename one of them")
    row = {named[field.name]: ["text"] if _is_list(field.type) else "text" for field in schema}
    if not is_known(row):
        raise unknown(row, where)
    wanted = known_columns(row)
    return {old: new for old, new in named.items() if new in wanted}


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _plain(value: Any) -> Any:
    """Return a value of JSON; dates, decimals and the like become text."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return str(value)


def _require_pyarrow(where: str) -> None:
    try:
        importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise UsageError(
            f"{where}: reading Parquet and Arrow tables needs the package pyarrow",
            hint='pip install "convo-cli[import]"',
        ) from None


@contextmanager
def _limited_memory() -> Iterator[None]:
    """Let this process add at most `_MEMORY_BYTES` of address space, on Linux."""
    if sys.platform != "linux":
        yield
        return
    import resource

    import psutil

    before = resource.getrlimit(resource.RLIMIT_AS)
    limits = [psutil.Process().memory_info().vms + _MEMORY_BYTES]
    limits += [limit for limit in before if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
