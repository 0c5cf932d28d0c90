"""Reader of IRC logs: lines with a nick in angle brackets, after a time or a date and a time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timezone

from convo_cli.importers.chats.phrases import SYSTEM
from convo_cli.importers.messages import Conversation, Counts, Message
from convo_cli.importers.source_files import Source
from convo_cli.importers.text_lines import iter_lines

_LINE = re.compile(
    r"(?:\[?(?:(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})[ T]|(?P<day>[A-Z][a-z]{2} [ 0-3]?[0-9]) )?"
    r"(?P<hour>[0-2]?[0-9]):(?P<minute>[0-5][0-9])(?::(?P<second>[0-5][0-9]))?\]?[ \t]{1,4})?"
    r"<[ @+%&~!]?(?P<nick>[^\s<>]{1,40})>[ \t](?P<text>.*)"
)
# --- Day changed Wed Jan 03 2024 · --- Log opened Tue Jan 02 10:00:00 2024
_DAY_CHANGE = re.compile(
    r"[-*]{3,4} (?:Day changed|Log opened|BEGIN LOGGING AT) [A-Z][a-z]{2} "
    r"(?P<day>[A-Z][a-z]{2} [ 0-3]?[0-9])(?: [0-9:]{8})? (?P<year>[0-9]{4})\r?"
)
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()  # noqa: SIM905  (a list of words)
_NO_YEAR = 2000
"""A year for days without one; a leap year."""
_DAY = 86400.0
_NUM_LINES = 30


def recognise(source: Source) -> bool:
    """Return whether most of the first lines are messages of a log."""
    if not source.is_single:
        return False
    lines = source.head_text(source.names[0]).split("\n", _NUM_LINES)[:_NUM_LINES]
    lines = [line for line in lines if line.strip()]
    return 2 * sum(_LINE.match(line) is not None for line in lines) > len(lines)


def read(source: Source, counts: Counts) -> Iterator[Conversation]:
    """Yield one conversation."""
    yield Conversation(source.where, _messages(source, counts))


def _messages(source: Source, counts: Counts) -> Iterator[Message]:
    day = clock = 0.0
    year = _NO_YEAR
    for _, line in iter_lines(source, source.names[0]):
        match = _LINE.match(line.removesuffix("\r"))
        if match is None:
            counts.dropped[SYSTEM] += bool(line.strip())
            if change := _DAY_CHANGE.fullmatch(line):
                year = int(change["year"])
                day, clock = _day_of_month(change["day"], year) or day, 0.0
            continue
        time: float | None = None
        if match["hour"] is not None:
            before = clock
            clock = (
                int(match["hour"]) * 3600.0 + int(match["minute"]) * 60 + int(match["second"] or 0)
            )
            if match["date"] is not None:
                day = _day(match["date"]) or day
            elif match["day"] is not None:
                day = _day_of_month(match["day"], year) or day
            elif clock < before:  # past midnight
                day += _DAY
            time = day + clock
        yield Message(match["nick"], match["text"], time)


def _day_of_month(text: str, year: int) -> float | None:
    """Return the seconds of a day such as Jan 02; a log that passes a year says so in a line."""
    month, _, number = text.partition(" ")
    if month not in _MONTHS:
        return None
    return _day(f"{year}-{_MONTHS.index(month) + 1:02}-{int(number):02}")


def _day(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()
    except ValueError:
        return None
