"""Messages and commands of earlier chats, for the up key and Ctrl-R.

They are kept in a file of the user, one JSON string a line. If the file cannot be read or written,
the history lasts for this chat only.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from convo_cli.errors import ConvoError
from convo_cli.storage.access import masked
from convo_cli.storage.atomic import write_file
from convo_cli.storage.files import only_regular, read_file

MAX_ENTRIES = 1000
_MAX_BYTES = 2**20  # of the file
_MAX_ENTRY = 10_000  # characters; a longer text is remembered by this chat only


def history_path() -> Path:
    """Return the file of the user's history."""
    from platformdirs import user_state_path

    return user_state_path("convo", appauthor=False) / "chat_history.jsonl"


class HistoryFile:
    """The file of entries: bounded, of mode 0600, never through a link."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_writable = True

    def load(self) -> list[str]:
        """Return the last entries, oldest first; a file that outgrew its limit is shortened."""
        try:
            raw = read_file(self._path, limit=2 * _MAX_BYTES)
        except OSError as error:
            # Only a missing file is created: convo did not write anything else at this path.
            self._is_writable = isinstance(error, FileNotFoundError)
            return []
        entries = [entry for line in raw.splitlines() if (entry := _entry_of(line))]
        kept = entries[-MAX_ENTRIES:]
        if len(entries) > 2 * MAX_ENTRIES or len(raw) > _MAX_BYTES:
            self._shorten(kept)
        return kept

    def add(self, entry: str) -> None:
        """Append an entry."""
        if not self._is_writable or len(entry) > _MAX_ENTRY:
            return
        line = (json.dumps(entry) + "\n").encode()
        try:
            with masked(0o700):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with open(self._path, "ab", buffering=0, opener=only_regular) as file:
                    if hasattr(os, "fchmod"):
                        os.fchmod(file.fileno(), 0o600)  # of a file that existed before
                    file.write(line)  # in one call, so that lines of two chats do not mix
        except OSError:
            self._is_writable = False

    def _shorten(self, entries: list[str]) -> None:
        """Keep the last entries, of at most half of the limit."""
        lines, size = list[str](), 0
        for entry in reversed(entries):
            line = json.dumps(entry) + "\n"
            size += len(line)
            if size > _MAX_BYTES // 2:
                break
            lines.append(line)
        with suppress(ConvoError), masked(0o600):
            write_file(self._path, "".join(reversed(lines)))


def _entry_of(line: bytes) -> str | None:
    """Return the text of a line; None for a damaged one, for example torn by a full disk."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, str) and len(entry) <= _MAX_ENTRY else None
