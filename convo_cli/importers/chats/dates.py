"""Date and time at the start of a message: forms of many languages, and the order of day and month.

One line often fits several orders, so `find_order` decides by all lines of a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias

from convo_cli.errors import DataError

Order: TypeAlias = Literal["day first", "month first", "year first"]
Style: TypeAlias = Literal["[]", "-", ","]
"""Signs around the stamp: [date, time] or date, time - or date, time,"""

_ORDERS: tuple[Order, ...] = ("day first", "month first", "year first")
_MARK = "[\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]{0,3}"
_SPACES = "[ \u00a0\u202f]{0,2}"
_AM = (
    r"[Aa]\.?[ \u00a0\u202f]?[Mm]\b\.?|오전|上午|凌晨|清晨|早上|午前|ص|π\.?μ\.?|ÖÖ|SA|PG|p\.d\.|"
    r"पूर्वाह्न|म\.पू\.|முற்பகல்|ಪೂರ್ವಾಹ್ನ|ق\.ظ\.|ጥዋት"
)
_PM = (
    r"[Pp]\.?[ \u00a0\u202f]?[Mm]\b\.?|오후|下午|傍晚|晚上|中午|午後|م|μ\.?μ\.?|ÖS|CH|PTG|m\.d\.|"
    r"अपराह्न|म\.उ\.|பிற்பகல்|ಅಪರಾಹ್ನ|ب\.ظ\.|ከሰዓት"
)
_AFTERNOON = re.compile(_PM)
_HALF = rf"{_AM}|{_PM}"
_DATE = (
    rf"(?P<a>\d{{1,4}}){_MARK}(?P<sign>[./-]|\. |年 ?|년 ){_MARK}(?P<b>\d{{1,2}}){_MARK}"
    rf"(?:[./-]|\. |月 ?|월 ){_MARK}(?P<c>\d{{1,4}}){_MARK}(?:日|일|\.| г\.)?"
)
_TIME = (
    rf"(?:(?P<before>{_HALF}){_SPACES})?(?P<hour>\d{{1,2}})(?:[:.h]| h )(?P<minute>\d{{2}})"
    rf"(?:[:.](?P<second>\d{{2}}))?{_SPACES}(?P<after>{_HALF})?(?: Uhr| ч\.)?"
)
_WORD = r"(?:(?:à|às|um|klo|kl\.|at|alle|ore|o|в|u|a las) )?"
_STAMP = re.compile(
    rf"{_MARK}(?P<open>\[)?{_MARK}{_DATE}[,،]?{_MARK}{_SPACES}{_WORD}{_TIME}{_MARK}"
    r"(?P<close>\] ?| ?[-–] |, )"
)
_TIME_FIRST = re.compile(
    rf"{_MARK}(?P<open>\[)?{_MARK}{_TIME},? {_MARK}{_DATE}{_MARK}(?P<close>\] ?| ?[-–] |, )"
)
_LONGEST = 120
"""Characters of a line in which a stamp is looked for."""
_FIRST_YEAR, _LAST_YEAR = 2000, 2100
_BUDDHIST = 543
_EARLIEST_SHORT_YEAR = 9
"""Two digits below are no year: WhatsApp began in 2009."""


class Stamp(NamedTuple):
    """Date and time of a line: three numbers in the order of the line, seconds of the day."""

    numbers: tuple[str, str, str]
    seconds: int
    style: Style
    sign: str
    """The sign between the numbers."""
    has_english_half: bool
    """Whether AM or PM is written as in the United States."""
    end: int
    """Place in the line where the stamp ends."""

    @property
    def shown(self) -> str:
        return self.sign.join(self.numbers)


class OrderOfDates(NamedTuple):
    """The order of a file's dates, and the style of its first stamp."""

    order: Order
    style: Style
    note: str
    """The notice for the user if the dates fit several orders; else empty."""


def match_stamp(line: str) -> Stamp | None:
    """Return the stamp with which a line begins; None if there is none, or no such date exists."""
    head = line[:_LONGEST]
    match = _STAMP.match(head) or _TIME_FIRST.match(head)
    if match is None:
        return None
    is_bracket, closing = match["open"] is not None, match["close"].strip()
    if is_bracket != (closing == "]"):
        return None
    if closing == "," and "년" not in match["sign"] and match["before"] not in ("오전", "오후"):
        return None  # a table whose first column is a time
    seconds = _seconds_of_day(match)
    numbers = (match["a"], match["b"], match["c"])
    if seconds is None or not any(_ordinal(numbers, order) for order in _ORDERS):
        return None
    style: Style = "[]" if is_bracket else "," if closing == "," else "-"
    half = (match["after"] or "").strip()
    return Stamp(numbers, seconds, style, match["sign"], half in ("AM", "PM"), match.end())


def find_order(where: str, stamps: Iterable[tuple[int, Stamp]]) -> OrderOfDates:
    """Return the order that fits the stamps of a file, each with its line number.

    Only stamps in the style of the first one count. If several orders fit, it is the one in which
    time goes backwards least. DataError if no order fits all of them, or there is no stamp.
    """
    first: Stamp | None = None
    misfits: dict[Order, tuple[int, str]] = {}
    descents: dict[Order, int] = dict.fromkeys(_ORDERS, 0)
    before: dict[Order, float] = {}
    for number, stamp in stamps:
        first = first or stamp
        if stamp.style != first.style:
            continue
        for order in _ORDERS:
            if order in misfits:
                continue
            day = _ordinal(stamp.numbers, order)
            if day is None:
                misfits[order] = (number, stamp.shown)
                continue
            now = day * 86400.0 + stamp.seconds
            descents[order] += now < before.get(order, now)
            before[order] = now
    if first is None:
        raise DataError(
            f"{where}: no line starts with a date and a time",
            hint="export the chat again: in WhatsApp, More, Export chat",
        )
    fitting = [order for order in _ORDERS if order not in misfits]
    if not fitting:
        shown = sorted(set(misfits.values()))
        places = " and ".join(f"{date} in line {number}" for number, date in shown)
        raise DataError(
            f"{where}: no order of day and month fits all dates, such as {places}",
            hint="export the chat again; if the file joins several exports, import each on its own",
        )
    fewest = min(descents[order] for order in fitting)
    best = [order for order in fitting if descents[order] == fewest]
    is_american = first.has_english_half and not first.numbers[0].startswith("0")
    chosen: Order = "month first" if is_american and "month first" in best else best[0]
    others = [other for other in best if other != chosen]
    note = (
        f"the dates are read {chosen}, but {' and '.join(others)} would also fit"
        if others and first.sign in "/-"
        else ""
    )
    return OrderOfDates(chosen, first.style, note)


def seconds_at(stamp: Stamp, order: Order) -> float | None:
    """Return the seconds since 1970 of a stamp; None if it has no date in this order."""
    day = _ordinal(stamp.numbers, order)
    return None if day is None else (day - date(1970, 1, 1).toordinal()) * 86400.0 + stamp.seconds


@lru_cache(maxsize=8192)
def _ordinal(numbers: tuple[str, str, str], order: Order) -> int | None:
    a, b, c = numbers
    day, month, year = {
        "day first": (a, b, c),
        "month first": (b, a, c),
        "year first": (c, b, a),
    }[order]
    full_year = _year(year)
    if full_year is None or len(day) > 2 or len(month) > 2:
        return None
    try:
        return date(full_year, int(month), int(day)).toordinal()
    except ValueError:
        return None


def _year(text: str) -> int | None:
    year = int(text)
    if len(text) == 2:
        return 2000 + year if year >= _EARLIEST_SHORT_YEAR else None
    if year > _LAST_YEAR:
        year -= _BUDDHIST
    return year if len(text) == 4 and _FIRST_YEAR <= year <= _LAST_YEAR else None


def _seconds_of_day(match: re.Match[str]) -> int | None:
    hour, minute, second = int(match["hour"]), int(match["minute"]), int(match["second"] or 0)
    half = match["before"] or match["after"]
    if half is not None:
        if not 0 <= hour <= 12:
            return None
        is_afternoon = _AFTERNOON.fullmatch(half) is not None
        hour = hour % 12 + 12 * is_afternoon
    is_time = hour < 24 and minute < 60 and second < 60
    return hour * 3600 + minute * 60 + second if is_time else None
