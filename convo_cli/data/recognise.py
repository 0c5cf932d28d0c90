"""Recognition of files that are not JSON Lines, by their first bytes."""

from __future__ import annotations

import csv
import io
import itertools
import re
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE

from convo_cli.data.problems import Problem, quoted

_COMPRESSED = ((b"\x1f\x8b", "gzip", ".gz"), (b"\x28\xb5\x2f\xfd", "Zstandard", ".zst"))
_BINARY = (
    (b"PK\x03\x04", "a zip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"PAR1", "a Parquet table"),
    (b"ARROW1", "an Arrow table"),
    (b"ORC", "an ORC table"),
    (b"Obj\x01", "Avro data"),
    (b"\xd0\xcf\x11\xe0", "an old Office document"),
    (b"\x93NUMPY", "a NumPy array"),
    *((b"\x80" + version, "a Python pickle") for version in (b"\x02", b"\x03", b"\x04", b"\x05")),
    (b"BZh", "bzip2 data"),
    (b"\xfd7zXZ\0", "xz data"),
    (b"\x04\x22\x4d\x18", "LZ4 data"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"%PDF-", "a PDF"),
)
_OPEN_ENDS = (b",", b"[", b"{", b":")
_NUM_LINES = 5
_DELIMITERS = (("\t", "tab"), (",", "comma"), (";", "semicolon"), ("|", "bar"))
# The start of a line of JSON, or a whole one. Single quotes and round brackets are Python's.
_JSON_LINE = re.compile(
    rb"(?:\xef\xbb\xbf)?(?:[\[{\"'(,\]}]|(?:-?[0-9.]+(?:[eE][-+]?[0-9]+)?|[A-Za-z]+|-Infinity)\Z)"
)


def recognise_compression(head: bytes, suffix: str) -> Problem | None:
    """Return the problem if the first bytes of a file on disk contradict its name; None if they do
    not.
    """
    for magic, name, right_suffix in _COMPRESSED:
        if suffix == right_suffix and head and not head.startswith(magic):
            return Problem(
                "wrong-compression", f"the name ends in {suffix}, the content is not {name}"
            )
        if suffix != right_suffix and head.startswith(magic):
            return Problem(
                "wrong-compression",
                f"the content is {name}, the name does not end in {right_suffix}",
            )
    return None


def recognise_content(head: bytes, suffix: str) -> Problem | None:
    """Return the problem if text that begins with ``head`` cannot be JSON Lines; None if it may
    be.
    """
    for magic, name in _BINARY:
        if head.startswith(magic):
            return Problem("binary-file", f"this is {name}")
    if head[257:262] == b"ustar":
        return Problem("binary-file", "this is a tar archive")
    # The first two characters of any JSON text are ASCII, so a zero byte there is half of a wider
    # character.
    if head.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) or b"\0" in head[:4]:
        if head[:4] == bytes(4):
            return Problem(
                "damaged-file", "the file begins with zero bytes, as after a crash or a full disk"
            )
        return Problem("utf-16", "the file is UTF-16 or UTF-32, JSON Lines are UTF-8")
    text = head.removeprefix(BOM_UTF8).lstrip()
    if text.startswith(b"version https://git-lfs.github.com/spec/"):
        return Problem(
            "git-lfs-pointer", "this is a git-LFS pointer, the data itself was not fetched"
        )
    if text[:64].lower().startswith((b"<!doctype html", b"<html")):
        return Problem("html-page", "this is an HTML page")
    lines = [line.rstrip() for line in text.split(b"\n") if line.strip()][:_NUM_LINES]
    return (
        _recognise_spread_json(lines)
        or _recognise_table(text, lines, suffix)
        or _recognise_text(lines)
    )


def _recognise_spread_json(lines: list[bytes]) -> Problem | None:
    """Recognise a JSON value over several lines: no line of JSON Lines ends in a comma, colon or
    opening bracket.
    """
    if len(lines) < 2 or not lines[0].startswith((b"[", b"{")) or not lines[0].endswith(_OPEN_ENDS):
        return None
    if (
        lines[0] not in (b"[", b"{")
        and not lines[1].startswith((b" ", b"\t"))
        and not lines[1].endswith(_OPEN_ENDS)
    ):
        return None
    what = "array" if lines[0].startswith(b"[") else "object"
    return Problem("pretty-printed-json", f"one JSON {what} is spread over several lines")


def _recognise_table(text: bytes, lines: list[bytes], suffix: str) -> Problem | None:
    is_named_table = suffix in (".csv", ".tsv")
    if any(line.startswith((b"[", b"{")) for line in lines) or not (
        is_named_table or len(lines) > 1
    ):
        return None
    decoded = text.decode("utf-8", "replace")
    for delimiter, name in _DELIMITERS:
        rows = itertools.islice(
            csv.reader(io.StringIO(decoded, newline=""), delimiter=delimiter), _NUM_LINES
        )
        try:
            widths = {len(row) for row in rows if row}
        except csv.Error:
            continue
        if len(widths) == 1 and widths != {1}:
            return _table(f"{name}-separated columns", lines[0])
    return _table("columns", lines[0]) if is_named_table and lines else None


def _table(what: str, header: bytes) -> Problem:
    return Problem("csv-file", f"this is a table with {what}; it begins with {_quoted(header)}")


def _recognise_text(lines: list[bytes]) -> Problem | None:
    """Recognise sentences, XML, YAML or the error page of a server: no line looks like JSON."""
    if not lines or any(_JSON_LINE.match(line) for line in lines) or not _is_utf8(lines[0]):
        return None
    what = "XML" if lines[0].startswith(b"<?xml") else "plain text"
    return Problem("plain-text", f"this is {what}; it begins with {_quoted(lines[0])}")


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _quoted(line: bytes) -> str:
    return quoted(line.decode("utf-8", "replace"))
