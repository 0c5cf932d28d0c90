"""Lines of stdin as messages, with bounded memory."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator

from convo_cli.errors import DataError

MAX_LINE_BYTES = 2**20
"""Limit of a line: far above any model's window, far below any machine's memory."""


def piped_lines() -> Iterator[tuple[int, str | DataError]]:
    """Yield number and text of each line that is not blank, or the error of a line.

    The rest of a line that is too long is skipped when the next one is asked for.
    """
    for number in itertools.count(1):
        raw = sys.stdin.buffer.readline(MAX_LINE_BYTES + 1)
        if not raw:
            return
        if len(raw) > MAX_LINE_BYTES:
            yield (
                number,
                DataError(
                    f"<stdin>:{number}: the line is longer than {MAX_LINE_BYTES:,} bytes",
                    hint="write one message per line",
                ),
            )
            while raw and not raw.endswith(b"\n"):
                raw = sys.stdin.buffer.readline(MAX_LINE_BYTES)
            continue
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            place, byte = f"<stdin>:{number}:{error.start + 1}", raw[error.start]
            yield (
                number,
                DataError(
                    f"{place}: byte 0x{byte:02X} is not UTF-8",
                    hint="convert the text to UTF-8 first, for example with iconv",
                ),
            )
            continue
        if line.strip():
            yield number, line
