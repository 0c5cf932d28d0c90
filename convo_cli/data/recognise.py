"""Recognition of files that are not JSON Lines by their first bytes."""

from __future__ import annotations

import csv
import io
import itertools
import re
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE, BOM_UTF32_LE

from convo_cli.data.conversions.chat_logs import is_chat_log, replying_in_log
from convo_cli.data.conversions.commands import by_chat_import, by_import
from convo_cli.data.conversions.lines import other_format_of_file
from convo_cli.data.problems import Problem
from convo_cli.wording import quoted

_ZSTD = (
    b"\x28\xb5\x2f\xfd",
    *(bytes([number]) + b"\x2a\x4d\x18" for number in range(0x50, 0x60)),  # as pzstd begins
)
_COMPRESSED = (((b"\x1f\x8b",), "gzip", ".gz"), (_ZSTD, "Zstandard", ".zst"))
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
_WIDE = (
    (BOM_UTF32_LE, "UTF-32"),  # before UTF-16's mark, with which it begins
    (BOM_UTF32_BE, "UTF-32"),
    (BOM_UTF16_LE, "UTF-16"),
    (BOM_UTF16_BE, "UTF-16"),
)
_IMPORTED = (b"PK\x03\x04", b"PAR1", b"ARROW1")
"""Files that `convo import` reads."""
_YAML_KEY = re.compile(rb"[A-Za-z_][\w-]*:(?: [^\t]{0,40})?")
_OPEN_ENDS = (b",", b"[", b"{", b":")
_NUM_LINES = 5
_DELIMITERS = (("\t", "tab"), (",", "comma"), (";", "semicolon"), ("|", "bar"))
# The start of a line of JSON, or a whole line; also of Python, with single quotes and parentheses.
_JSON_LINE = re.compile(
    rb"(?:\xef\xbb\xbf)?(?:[\[{\"'(,\]}]|(?:-?[0-9.]+(?:[eE][-+]?[0-9]+)?|[A-Za-z]+|-Infinity)\Z)"
)


def recognise_compression(head: bytes, suffix: str) -> Problem | None:
    """Return the problem if the first bytes of a file contradict its name; None otherwise."""
    if suffix in (".gz", ".zst") and (page := _recognise_download(head)) is not None:
        return page
    for magic, name, right_suffix in _COMPRESSED:
        if suffix == right_suffix and head and not head.startswith(magic):
            message = f"the name ends in {suffix}, but the content is not {name}"
            return Problem("wrong-compression", message)
        if suffix != right_suffix and head.startswith(magic):
            message = f"the content is {name}, but the name does not end in {right_suffix}"
            return Problem("wrong-compression", message)
    return None


def recognise_content(head: bytes, suffix: str) -> Problem | None:
    """Return the problem if a file that begins with ``head`` cannot be JSON Lines; else None."""
    for magic, name in _BINARY:
        if head.startswith(magic):
            advice = by_import("convert it") if magic in _IMPORTED else ""
            return Problem("binary-file", f"the file is {name}, not JSON Lines", advice=advice)
    if head[257:262] == b"ustar":
        return Problem("binary-file", "the file is a tar archive, not JSON Lines")
    if encoding := _wide_encoding(head):
        message = f"the file is {encoding}, but JSON Lines are UTF-8"
        return Problem(encoding[: len("utf-16")].lower(), message)  # without the byte order
    if head.startswith(b"\0\0"):
        message = "the file begins with zero bytes, as after a crash or on a full disk"
        return Problem("damaged-file", message)
    if (page := _recognise_download(head)) is not None:
        return page
    text = head.removeprefix(BOM_UTF8).lstrip()
    lines = [line.rstrip() for line in text.split(b"\n") if line.strip()][:_NUM_LINES]
    return (
        _recognise_spread_json(text, lines)
        or _recognise_chat_log(lines)
        or _recognise_table(text, lines, suffix)
        or _recognise_text(lines)
    )


def _recognise_download(head: bytes) -> Problem | None:
    """Recognise what a download leaves instead of the file."""
    text = head.removeprefix(BOM_UTF8).lstrip()
    if text.startswith(b"version https://git-lfs.github.com/spec/"):
        message = "the file is a git-LFS pointer; the data itself was not downloaded"
        return Problem("git-lfs-pointer", message)
    if text[:64].lower().startswith((b"<!doctype html", b"<html")):
        return Problem("html-page", "the file is an HTML page, not JSON Lines")
    return None


def _wide_encoding(head: bytes) -> str | None:
    """Return iconv's name of UTF-16 or UTF-32, by a byte order mark or the zero bytes of ASCII."""
    for mark, name in _WIDE:
        if head.startswith(mark):
            return name
    is_zero = tuple(byte == 0 for byte in head[:4])
    if is_zero == (False, True, True, True):
        return "UTF-32LE"
    if is_zero == (True, True, True, False):
        return "UTF-32BE"
    # JSON begins with an ASCII character; the next one may be any.
    if is_zero[:2] == (False, True):
        return "UTF-16LE"
    return "UTF-16BE" if is_zero[:2] == (True, False) else None


def _recognise_spread_json(text: bytes, lines: list[bytes]) -> Problem | None:
    """Recognise a JSON value over several lines, which end in commas, colons or open brackets."""
    if len(lines) < 2:
        return None
    first, second = lines[:2]
    if not first.startswith((b"[", b"{")) or not first.endswith(_OPEN_ENDS):
        return None
    is_inside = second.startswith((b" ", b"\t")) or second.endswith(_OPEN_ENDS)
    if first not in (b"[", b"{") and not is_inside:
        return None
    what = "array" if first.startswith(b"[") else "object"
    message = f"a JSON {what} spans several lines"
    return other_format_of_file(text) or Problem("pretty-printed-json", message)


def _recognise_chat_log(lines: list[bytes]) -> Problem | None:
    texts = [line.decode("utf-8", "replace") for line in lines]
    if not is_chat_log(texts):
        return None
    message = f"the file is the log of a chat; it begins with {_quoted(lines[0])}"
    return Problem("chat-log", message, advice=by_chat_import(replying_in_log(texts)))


def _recognise_table(text: bytes, lines: list[bytes], suffix: str) -> Problem | None:
    is_named_table = suffix in (".csv", ".tsv")
    is_json = any(line.startswith((b"[", b"{")) for line in lines)
    if is_json or not (is_named_table or len(lines) > 1):
        return None
    decoded = text.decode("utf-8", "replace")
    for delimiter, name in _DELIMITERS:
        rows = csv.reader(io.StringIO(decoded, newline=""), delimiter=delimiter)
        try:
            widths = {len(row) for row in itertools.islice(rows, _NUM_LINES) if row}
        except csv.Error:
            continue
        if len(widths) == 1 and widths != {1}:
            return _table(f"{name}-separated columns", lines[0])
    return _table("columns", lines[0]) if is_named_table and lines else None


def _table(what: str, header: bytes) -> Problem:
    message = f"the file is a table with {what}; it begins with {_quoted(header)}"
    return Problem("csv-file", message)


def _recognise_text(lines: list[bytes]) -> Problem | None:
    """Recognise sentences, XML, YAML or an error page: no line looks like JSON."""
    if not lines or any(_JSON_LINE.match(line) for line in lines) or not _is_utf8(lines[0]):
        return None
    what = "XML" if lines[0].startswith(b"<?xml") else "plain text"
    if _YAML_KEY.fullmatch(lines[0]) and any(line.lstrip().startswith(b"- ") for line in lines):
        what = "YAML"
    message = f"the file is {what}, not JSON Lines; it begins with {_quoted(lines[0])}"
    is_parlai = lines[0].startswith(b"text:")
    advice = by_import("convert the dialogues of ParlAI") if is_parlai else ""
    return Problem("plain-text", message, advice=advice)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _quoted(line: bytes) -> str:
    return quoted(line.decode("utf-8", "replace"))
