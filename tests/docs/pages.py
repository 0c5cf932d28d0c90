"""Code blocks of a documentation page, compared with the output of real commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_BLOCK = re.compile(
    r"(?:^`(?P<file>[\w./-]+)`[^\n]*:\n\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```", re.M | re.S
)
_NUMBER = re.compile(r"\d[\d,.:]*(?:e[-+]?\d+)?(?:k(?= ))?")
_DRAWN = re.compile(r"[█▉▊▋▌▍▎▏▁▂▃▄▅▆▇─━│┃┏┓┗┛┡┩┳┻╇┴└┘┬┌┐├┤┼]+")


class Block(NamedTuple):
    """A fenced block: its language, and for JSON the file that the line above it names."""

    kind: str
    text: str
    file: str


def blocks(page: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    for match in _BLOCK.finditer(page):
        file = match["file"] if match["kind"] == "json" else None
        yield Block(match["kind"], match["text"], file or "")


def normal(line: str) -> str:
    """Remove from a line of output what differs between runs: numbers, bars, widths of spaces."""
    return " ".join(_NUMBER.sub("#", _DRAWN.sub(" ", line)).split())


def missing(shown: str, output: str) -> list[str]:
    """Return the lines of a block that the output lacks; a line with only … matches any lines."""
    real = {normal(line) for line in output.splitlines()}
    lines = [line for line in shown.splitlines() if line.strip() not in ("", "…")]
    return [line for line in lines if normal(line) not in real]
