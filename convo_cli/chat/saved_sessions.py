"""Saved sessions: a file of one line for each, written after every reply.

The files are below the user's state directory and readable only by this user. A session in another
place is read and continued in a new file. convo deletes no session that has a reply.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from filelock import FileLock, Timeout

from convo_cli.chat.session_folder import (
    PRIVATE_FILE,
    make_private_folder,
    read_session,
    sessions_folder,
    write_session,
)
from convo_cli.chat.session_lines import note_on_model
from convo_cli.errors import ConvoError, DiskError, UsageError
from convo_cli.storage.atomic import disk_errors, remove_leftovers_of
from convo_cli.storage.folder import delete

if TYPE_CHECKING:
    from convo_cli.chat.session import ChatSession
    from convo_cli.config.schema import GenerationSettings
    from convo_cli.model.decoding.generator import Generator

_SUFFIX = ".jsonl"
_NAME_DIGITS = 12  # of the contract, in the name of a file


def recent_sessions(contract: str, limit: int = 1000) -> list[Path]:
    """Return the sessions of a contract, the last saved one first; none if they cannot be read."""
    found: list[tuple[int, str]] = []
    with suppress(OSError, DiskError):
        folder = sessions_folder()
        ending = f"-{contract[:_NAME_DIGITS]}{_SUFFIX}"
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(ending) and entry.is_file(follow_symlinks=False):
                    found.append((entry.stat(follow_symlinks=False).st_mtime_ns, entry.name))
        return [folder / name for _, name in sorted(found, reverse=True)[:limit]]
    return []


def newest_for(contract: str) -> Path:
    """Return the last saved session of a contract; UsageError if there is none."""
    if recent := recent_sessions(contract, 1):
        return recent[0]
    raise UsageError(
        "there is no saved session with this model",
        hint="leave out --continue; a chat on a terminal is saved after each reply",
    )


class SessionFile:
    """The file in which one chat saves its session, locked against other chats.

    A new conversation needs a new file, because `save` replaces the content.
    """

    def __init__(self, path: Path | None, why_none: str = "") -> None:
        self.path = path
        """None if there is no folder for sessions; `save` then returns a warning."""
        self._why_none = why_none
        self._lock: FileLock | None = None
        self._has_failed = False

    @classmethod
    def new(cls, contract: str) -> SessionFile:
        """Choose the name of a new file, which the first `save` creates."""
        time = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H-%M-%S")
        name = f"{time}-{secrets.token_hex(3)}-{contract[:_NAME_DIGITS]}{_SUFFIX}"
        try:
            return cls(sessions_folder() / name)
        except DiskError as error:
            return cls(None, error.message)

    def is_at(self, path: Path) -> bool:
        """Return whether a path leads to this file."""
        with suppress(OSError):
            return self.path is not None and path.samefile(self.path)
        return False

    def hold(self) -> None:
        """Lock the file until `close`; UsageError if another chat has it open."""
        if self._lock is not None and not Path(self._lock.lock_file).exists():
            self._lock.release()  # its folder was removed, and other chats lock a new file
            self._lock = None
        if self._lock is not None or self.path is None:
            return
        place = self.path.with_name(f"{self.path.name}.lock")
        lock = FileLock(place, mode=PRIVATE_FILE, thread_local=False, fallback_to_soft=False)
        with disk_errors(place):
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise UsageError(
                    f"{self.path}: the session is open in another chat",
                    hint="leave that chat first, or start a new session",
                ) from None
        self._lock = lock
        with suppress(DiskError):
            remove_leftovers_of(self.path)

    def save(self, session: ChatSession, *, warns_again: bool = False) -> str | None:
        """Save the session; return a warning if this fails.

        Only the first of several failures in a row returns one, unless ``warns_again``. A later
        call tries again, because a full disk may have been cleared. A session without replies has
        no file: after an undo of everything it is removed.
        """
        try:
            if self.path is None:
                raise DiskError(self._why_none)
            if session.exchanges:
                make_private_folder(self.path.parent)
                self.hold()
                write_session(self.path, session)
            elif self._lock is not None:
                with disk_errors(self.path):
                    delete(self.path)
        except ConvoError as error:
            is_first, self._has_failed = not self._has_failed, True
            is_warning = is_first or warns_again
            return f"the session is not saved: {error.message}" if is_warning else None
        self._has_failed = False
        return None

    def close(self) -> None:
        """Release the lock of the file."""
        if self._lock is not None:
            with suppress(OSError):  # while it is held, so that no other chat has it open
                Path(self._lock.lock_file).unlink()
            self._lock.release()
            self._lock = None


class Reopened(NamedTuple):
    """A saved session that is continued."""

    session: ChatSession
    file: SessionFile
    note: str | None
    """What the user should know about it."""


def reopen(
    path: Path,
    generator: Generator,
    settings: GenerationSettings | None = None,
    *,
    seed: int | None = None,
    is_held: bool = True,
) -> Reopened:
    """Continue the session of a file; ``settings`` replace its sampling settings.

    The session gets a new file if this one is outside `sessions_folder`, or if not ``is_held``.
    Raises the errors of `read_session`, UsageError if the session is open in another chat,
    ChangedError if its contract is not that of the model.
    """
    from convo_cli.chat.session import ChatSession

    file = SessionFile(path)
    is_own = is_held and _is_own(path)
    try:
        if is_own:
            with suppress(DiskError):  # read-only: the first `save` says so
                file.hold()
        saved = read_session(path)
        try:
            session = ChatSession.from_line(saved, generator, settings, seed=seed)
        except ConvoError as error:
            raise type(error)(f"{path}: {error.message}", hint=error.hint) from None
    except BaseException:
        file.close()
        raise
    if not is_own:
        file = SessionFile.new(session.contract)
    return Reopened(session, file, note_on_model(saved, generator))


def _is_own(path: Path) -> bool:
    """Return whether a file lies in the folder of the sessions."""
    with suppress(OSError, DiskError):
        return path.parent.samefile(sessions_folder())
    return False
