"""Times of messages in the forms of JSON exports."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

_FRACTION_DIGITS = 6
_MILLISECONDS_FROM = 1e11
"""Larger numbers count milliseconds; as seconds, they would be after the year 5000."""
_LAST_SECOND = 4.1e9


def seconds_of(stamp: Any) -> float | None:
    """Return the seconds of a number, a number in a text, or an ISO 8601 date; None for others."""
    if isinstance(stamp, bool):
        return None
    if isinstance(stamp, (int, float)):
        try:
            stamp = float(stamp)
        except OverflowError:
            return None
        seconds = stamp / (1000 if stamp > _MILLISECONDS_FROM else 1)
        return seconds if 0 <= seconds <= _LAST_SECOND else None
    if not isinstance(stamp, str) or not 4 < len(stamp) <= 40:
        return None
    try:
        return seconds_of(float(stamp))
    except ValueError:
        pass
    text = stamp.strip().replace("Z", "+00:00")
    head, point, rest = text.partition(".")
    if point:  # Python 3.10 reads 3 or 6 digits of a second only
        digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        text = f"{head}.{digits[:_FRACTION_DIGITS]:0<6}{rest[len(digits) :]}"
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=moment.tzinfo or timezone.utc).timestamp()
    except (ValueError, OverflowError):
        return None
