"""Rows of CSV and TSV files, read by the csv module, with limits and strict quotes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from convo_cli.data.reader import MAX_LINE_BYTES
from convo_cli.data.repair.lenient_json import BeyondRepairError, python_value
from convo_cli.data.shapes.known_keys import TRAIN_KEYS
from convo_cli.errors import DataError
from convo_cli.importers.dumps.field_names import plain_name
from convo_cli.importers.dumps.row_shapes import is_known, renamed, require_columns, unknown
from convo_cli.importers.messages import Counts
from convo_cli.importers.source_files import Source, encoding_of
from convo_cli.wording import counted, quoted

MAX_COLUMNS = 1000
MAX_ROW_CHARACTERS = MAX_LINE_BYTES
_DELIMITERS = (",", ";", "\t", "|")
_LISTS = """
    messages conversations conversation dialog dialogue dialogs dialogues turns utterances data
    history chosen rejected conversationa conversationb prompt responsea responseb
""".split()  # noqa: SIM905  (a list of words)
"""Columns in which a cell that begins with a bracket is a list or an object, not a text."""
_FLAGS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False, "": None}
"""Cells of a column that states what is trained on; all others are refused."""
_PAIR = ("prompt", "completion")
_EMPATHETIC = {"convid", "utteranceidx", "speakeridx", "utterance"}


def read_delimited_rows(source: Source, name: str, counts: Counts) -> Iterator[dict[str, Any]]:
    """Yield the rows as objects; DataError, with the line, for a row that the others contradict."""
    where = source.shown(name)
    with source.open(name) as stream:
        text = io.TextIOWrapper(stream, encoding=encoding_of(source.head(name)), newline="")
        lines = _Lines(text, where)
        columns = source.given.columns
        form = _Form(source.head_text(name), name, columns)
        rows = _records(lines, form.dialect, where)
        header = next(rows, None)
        if header is None:
            raise DataError(f"{where}: it has no rows")
        require_columns(columns, [column.strip() for column in header], where)
        if form.is_headerless:
            counts.notes.append(
                f"{where}: no column has a name that convo reads, so the first row is read as a "
                f"dialogue too: {quoted(header[0])}"
            )
            yield dict(zip(_PAIR, header, strict=True))
            names = list(_PAIR)
        else:
            names = form.named(header)
            _require_header(names, where)
        for row in rows:
            yield _as_object(row, names, lines, is_ragged=form.is_ragged)


class _Form:
    """The delimiter, the quotes and the header of a table, by its beginning."""

    def __init__(self, head: str, name: str, columns: Mapping[str, str]) -> None:
        self._columns = columns
        lines = head.splitlines(keepends=True)
        lines = lines[:-1] if len(lines) > 1 else lines
        is_tab = ".tsv" in name.lower() or ".tab" in name.lower()
        headers = {each: _first_record(lines, each) for each in ("\t",) if is_tab} or {
            each: _first_record(lines, each) for each in _DELIMITERS
        }
        known = [each for each, header in headers.items() if _is_header(self.named(header))]
        widest = max(headers, key=lambda each: len(headers[each]))
        delimiter = known[0] if known else widest
        header = headers[delimiter]
        self.is_headerless = not known and delimiter == "\t" and len(header) == 2
        # The quotes in EmpatheticDialogues mean nothing, because its commas are written _comma_.
        self.is_ragged = {plain_name(column) for column in header} >= _EMPATHETIC
        is_quoted = not self.is_ragged and (delimiter != "\t" or _has_strict_quotes(lines))
        self.dialect = _dialect(delimiter, is_quoted=is_quoted)

    def named(self, header: list[str]) -> list[str]:
        """Return the names of columns that convo reads."""
        stripped = [column.strip() for column in header]
        spelling = renamed(stripped)
        return [self._columns.get(column, spelling[column]) for column in stripped]


class _Lines:
    """Lines of a table for csv, which are bounded together until a row is complete."""

    def __init__(self, text: io.TextIOWrapper, where: str) -> None:
        self._text = text
        self._where = where
        self._num_characters = 0
        self.number = 0
        self.first_number = 1

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            line = self._text.readline(MAX_ROW_CHARACTERS + 1)
        except UnicodeError:
            raise DataError(
                f"{self._where}: line {self.number + 1} or one soon after it is not UTF-8",
                hint="convert the file from its encoding, for example from Windows-1252: "
                "iconv -f WINDOWS-1252 -t UTF-8 in.csv > out.csv",
            ) from None
        if not line:
            raise StopIteration
        self.number += 1
        self._num_characters += len(line)
        if self._num_characters > MAX_ROW_CHARACTERS:
            raise self.fault(
                f"the row is longer than {MAX_ROW_CHARACTERS // 2**20} MiB; a quote in it may "
                "never be closed"
            )
        if "\0" in line:
            raise self.fault("the line holds a NUL character")
        return line

    def start_row(self) -> None:
        self._num_characters = 0
        self.first_number = self.number + 1

    def fault(self, message: str) -> DataError:
        return DataError(
            f"{self._where}: line {self.first_number}: {message}",
            hint="write the table with a program that quotes cells, such as Python's csv module",
        )


def _records(lines: _Lines, dialect: type[csv.Dialect], where: str) -> Iterator[list[str]]:
    """Yield the rows that are not blank; DataError for a quote in the wrong place."""
    before = csv.field_size_limit(MAX_ROW_CHARACTERS)
    try:
        reader = csv.reader(lines, dialect)
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                is_open = "unexpected end" in str(error)
                what = "a quote is never closed" if is_open else f"a quote is misplaced ({error})"
                raise lines.fault(what) from None
            if any(row):
                yield row
            lines.start_row()
    finally:
        csv.field_size_limit(before)


def _as_object(
    row: list[str], names: list[str], lines: _Lines, *, is_ragged: bool
) -> dict[str, Any]:
    surplus = row[len(names) :]
    if not is_ragged and (len(row) < len(names) or any(surplus)):
        columns = counted(len(row), "column")
        raise lines.fault(f"the row has {columns}, but the header has {len(names)}")
    cells: dict[str, Any] = dict(zip(names, row, strict=False))
    for name in names:
        if cells.get(name, "")[:1] in ("[", "{") and plain_name(name) in _LISTS:
            cells[name] = _list_in(cells[name], name, lines)
        elif name in TRAIN_KEYS and (cell := cells.get(name, "").strip().casefold()) in _FLAGS:
            cells[name] = _FLAGS[cell]
    return cells


def _list_in(cell: str, name: str, lines: _Lines) -> Any:
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        pass
    try:
        return python_value(cell)
    except (BeyondRepairError, RecursionError):
        raise lines.fault(
            f"the column {quoted(name)} holds a list that is neither JSON nor Python, for example "
            "one that numpy wrote without commas"
        ) from None


def _require_header(names: list[str], where: str) -> None:
    if len(names) > MAX_COLUMNS:
        raise DataError(f"{where}: it has {len(names):,} columns; at most {MAX_COLUMNS:,} are read")
    repeated = next((name for name in names if name and names.count(name) > 1), None)
    if repeated is not None:
        raise DataError(f"{where}: two columns are named {quoted(repeated)}", hint="rename one")
    if not _is_header(names):
        raise unknown(dict.fromkeys(names), where)


def _is_header(names: list[str]) -> bool:
    """Return whether rows with texts, or lists where they are usual, would be known."""
    lists = {name: ["text"] if plain_name(name) in _LISTS else "text" for name in names}
    return is_known(dict.fromkeys(names, "text")) or is_known(lists)


def _dialect(mark: str, *, is_quoted: bool) -> type[csv.Dialect]:
    class Dialect(csv.Dialect):
        delimiter = mark
        quotechar = '"'
        doublequote = True
        skipinitialspace = False
        lineterminator = "\n"
        quoting = csv.QUOTE_MINIMAL if is_quoted else csv.QUOTE_NONE
        strict = is_quoted

    return Dialect


def _first_record(lines: Iterable[str], delimiter: str) -> list[str]:
    try:
        rows = csv.reader(lines, _dialect(delimiter, is_quoted=True))
        return next((row for row in rows if any(row)), [])
    except csv.Error:
        return []


def _has_strict_quotes(lines: list[str]) -> bool:
    """Return whether the quotes of a table with tabs are those of csv, not those of speech."""
    if not any(cell.startswith('"') for line in lines for cell in line.split("\t")):
        return False
    try:
        list(csv.reader(lines, _dialect("\t", is_quoted=True)))
    except csv.Error:
        return False
    return True
