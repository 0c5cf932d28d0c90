"""Reader of JSON Lines with one message each: {"timestamp": …, "sender": …, "message": …}."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from convo_cli.importers.json_values import iter_values
from convo_cli.importers.messages import Conversation, Counts, Message
from convo_cli.importers.source_files import Source

_SENDER_KEYS = ("sender", "from", "author", "name", "user")
_TEXT_KEYS = ("message", "text", "content")
_TIME_KEYS = ("timestamp", "time", "date")


def recognise(source: Source) -> bool:
    """Return whether the first line has the three keys."""
    if not source.is_single:
        return False
    line = source.head_text(source.names[0]).lstrip().partition("\n")[0]
    return line.startswith("{") and all(
        any(f'"{key}"' in line for key in keys) for keys in (("sender",), ("message",), _TIME_KEYS)
    )


def read(source: Source, counts: Counts) -> Iterator[Conversation]:
    """Yield one conversation."""
    yield Conversation(source.path.stem, _messages(source, counts))


def _messages(source: Source, counts: Counts) -> Iterator[Message]:
    for value in iter_values(source, source.names[0]):
        sender, text = _first(value, _SENDER_KEYS), _first(value, _TEXT_KEYS)
        if isinstance(sender, str) and isinstance(text, str) and text.strip():
            yield Message(sender, text, seconds_of(_first(value, _TIME_KEYS)))
        else:
            counts.dropped["no text"] += 1


def _first(value: Any, keys: tuple[str, ...]) -> Any:
    if not isinstance(value, dict):
        return None
    return next((value[key] for key in keys if key in value), None)


def seconds_of(stamp: Any) -> float | None:
    """Return the seconds of a time stamp: a number, or an ISO 8601 date; None if it is neither."""
    if isinstance(stamp, bool):
        return None
    if isinstance(stamp, (int, float)):
        return float(stamp / 1000 if stamp > 1e11 else stamp)
    if not isinstance(stamp, str) or len(stamp) > 40:
        return None
    try:
        moment = datetime.fromisoformat(stamp.strip().replace("Z", "+00:00"))
    except ValueError:
        return None
    return moment.replace(tzinfo=moment.tzinfo or timezone.utc).timestamp()
