"""The folder of this user's sessions, and reading and writing the file of one session."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from convo_cli.chat.session_lines import SavedLine, parse_line
from convo_cli.errors import DataError, DiskError, UsageError
from convo_cli.storage.access import is_exposed, make_private
from convo_cli.storage.atomic import disk_errors, writing
from convo_cli.storage.files import UnsafeFileError, read_file

if TYPE_CHECKING:
    from convo_cli.chat.session import ChatSession

PRIVATE_FILE = 0o600
_PRIVATE_FOLDER = 0o700


def sessions_folder() -> Path:
    """Return the folder of this user's sessions, which may not exist yet.

    Raises DiskError if the environment names no absolute path.
    """
    from platformdirs import user_state_dir

    try:
        folder = Path(user_state_dir("convo", appauthor=False)) / "sessions"
    except RuntimeError:  # of platformdirs 4.14
        folder = Path("sessions")
    if not folder.is_absolute():
        raise DiskError(
            "there is no home directory with an absolute path",
            hint="set HOME, or XDG_STATE_HOME, to an absolute path",
        )
    return folder


def read_session(path: Path) -> SavedLine:
    """Read the file of a session.

    Raises DataError if the file is damaged, not a session, too large or not regular, UsageError if
    it is missing or cannot be read.
    """
    try:
        raw = read_file(path)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file", hint="give the file of a session") from None
    except UnsafeFileError as error:
        raise DataError(f"{path}: {error.strerror}", hint=error.hint) from None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", hint="give the file of a session") from None
    line, _, rest = raw.partition(b"\n")
    if rest.strip():
        raise DataError(
            f"{path}: more than one line, so it is not a session",
            hint="a session is one line; copy the line to load into a file of its own",
        )
    try:
        return parse_line(line)
    except DataError as error:
        raise DataError(f"{path}:1: {error.message}", hint=error.hint) from None


def write_session(path: Path, session: ChatSession) -> None:
    """Write the line of a session, whole or not at all, so that only this user can read it."""
    line = json.dumps(session.to_line(), ensure_ascii=False) + "\n"
    for separator in "\x85\u2028\u2029":  # some programs end a line there
        line = line.replace(separator, f"\\u{ord(separator):04x}")
    with writing(path) as file:
        with suppress(AttributeError):  # Windows
            os.fchmod(file.fileno(), PRIVATE_FILE)  # before any content, whatever the umask is
        file.write(line.encode())


def make_private_folder(folder: Path) -> None:
    """Create the folder of the sessions; DiskError if other users could change or read it."""
    with disk_errors(folder), _own_mode():
        folder.parent.mkdir(parents=True, exist_ok=True)
        reason = make_private(folder)
        if reason is None and is_exposed(folder.parent):
            reason = f"other users may rename it, because of the mode or owner of {folder.parent}"
    if reason is not None:
        raise DiskError(f"{folder}: {reason}", hint="remove it, or change its owner and mode")


@contextmanager
def _own_mode() -> Iterator[None]:
    """Create folders for this user alone inside the block, whatever the umask is."""
    before = os.umask(0o777 & ~_PRIVATE_FOLDER)
    try:
        yield
    finally:
        os.umask(before)
