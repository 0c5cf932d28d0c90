"""Messages of a table, grouped into dialogues by a temporary database.

SQLite keeps the messages in a private file without a name, so memory is bounded however long the
table is and however its rows are ordered.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from typing import Any, NamedTuple

from convo_cli.errors import UsageError

MAX_MESSAGES = 10_000
"""Messages of one dialogue."""

_TABLE = """
    CREATE TABLE message (
        number INTEGER PRIMARY KEY, dialogue TEXT, ident TEXT, parent TEXT,
        speaker TEXT, text TEXT, place REAL, rank REAL, time REAL, is_good INTEGER
    )
"""
# A message whose parent is not in the table begins a dialogue.
_THREADS = """
    WITH RECURSIVE thread(number, ident, first) AS (
        SELECT number, ident, number FROM message AS message WHERE parent IS NULL
            OR NOT EXISTS (SELECT 1 FROM message AS other WHERE other.ident = message.parent)
        UNION ALL
        SELECT reply.number, reply.ident, thread.first
            FROM thread JOIN message AS reply ON reply.parent = thread.ident
    )
    INSERT INTO thread_of SELECT number, first FROM thread
"""
_IN_ORDER = """
    SELECT dialogue, ident, parent, speaker, text, place, rank, time, is_good
    FROM (SELECT *, MIN(number) OVER (PARTITION BY dialogue) AS first FROM message)
    ORDER BY first, number
"""
_FULL = "convo stores the messages in a temporary file; set TMPDIR to a folder with more space"


class StoredMessage(NamedTuple):
    """One message. ``place`` orders the messages of a dialogue, ``rank`` those with one parent."""

    dialogue: str
    ident: str | None
    parent: str | None
    speaker: str | None
    text: str
    place: float | None = None
    rank: float | None = None
    time: float | None = None
    is_good: bool = True


class MessageStore:
    """The messages of one table."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._database = sqlite3.connect("")
        self._database.executescript(
            f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {_TABLE}"
        )

    @classmethod
    def opened(cls, where: str) -> AbstractContextManager[MessageStore]:
        return closing(cls(where))

    def close(self) -> None:
        self._database.close()

    def add(self, messages: Iterator[StoredMessage]) -> None:
        """Store the messages in their order."""
        numbered = ((None, *message) for message in messages)
        command = (
            "INSERT INTO message (number, dialogue, ident, parent, speaker, text, place, rank, "
            "time, is_good) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        )
        self._run(command, numbered)

    def speakers(self, limit: int) -> list[str]:
        """Return up to ``limit`` different names of speakers."""
        command = "SELECT DISTINCT speaker FROM message WHERE speaker IS NOT NULL LIMIT ?"
        return [name for (name,) in self._select(command, limit)]

    def find_threads(self) -> int:
        """Make each tree of replies a dialogue, and drop all others; return their number.

        A repeated message is dropped, and so is a circle of replies.
        """
        before = self._count()
        self._run("CREATE INDEX by_ident ON message (ident)")
        self._run("CREATE INDEX by_parent ON message (parent)")
        self._run(
            "DELETE FROM message WHERE ident IS NOT NULL AND number NOT IN "
            "(SELECT MIN(number) FROM message GROUP BY ident)"
        )
        self._run("CREATE TABLE thread_of (number INTEGER PRIMARY KEY, first INTEGER)")
        self._run(_THREADS)
        self._run("DELETE FROM message WHERE number NOT IN (SELECT number FROM thread_of)")
        self._run(
            "UPDATE message SET dialogue = "
            "(SELECT first FROM thread_of WHERE thread_of.number = message.number)"
        )
        return before - self._count()

    def dialogues(self) -> Iterator[list[StoredMessage]]:
        """Yield the messages of each dialogue, in the order in which the dialogues begin.

        A dialogue of more than `MAX_MESSAGES` has one message more than that here.
        """
        for _, messages in itertools.groupby(self.messages(), lambda message: message.dialogue):
            yield list(itertools.islice(messages, MAX_MESSAGES + 1))

    def messages(self) -> Iterator[StoredMessage]:
        """Yield every message, one dialogue after another."""
        for row in self._select(_IN_ORDER):
            yield StoredMessage(*row)

    def _count(self) -> int:
        return int(next(self._select("SELECT COUNT(*) FROM message"))[0])

    def _select(self, command: str, *values: object) -> Iterator[tuple[Any, ...]]:
        try:
            yield from self._database.execute(command, values)
        except sqlite3.Error as error:
            raise self._refusal(error) from None

    def _run(self, command: str, rows: Iterator[tuple[object, ...]] | None = None) -> None:
        try:
            if rows is None:
                self._database.execute(command)
            else:
                self._database.executemany(command, rows)
        except sqlite3.Error as error:
            raise self._refusal(error) from None

    def _refusal(self, error: sqlite3.Error) -> UsageError:
        return UsageError(f"{self._where}: its messages cannot be stored: {error}", hint=_FULL)
