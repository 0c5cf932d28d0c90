"""Errors that convo raises on purpose, each with the exit code that a script can rely on.

    ConvoError                       1        the root; never raised itself
    ├── UsageError                   2        arguments; a missing file, package or device
    │   ├── ConfigError              2        the config or a --set is wrong
    │   ├── ModelError               2        a model or tokenizer is unreadable or does not fit
    │   │   └── ModelNotFoundError   2        there is no such folder, here or on the hub
    │   └── OutOfMemoryError         2        the work does not fit into memory
    ├── DataError                    3        the dialogues cannot be trained on
    ├── DivergedError                4        a loss or gradient is not finite
    │   └── EvaluationDivergedError  4        the validation loss is not finite
    ├── CheckpointError              5        a checkpoint or run directory is missing or damaged
    ├── ChangedError                 6        data, tokenizer, config or model changed during a run
    │   └── FileChangedError         6        a data file changed after it was hashed
    ├── DiskError                    7        no space, no permission, or read-only
    ├── RankLostError                137      one of the processes of a run was killed
    └── StoppedError                 130/143  SIGINT or SIGTERM; the work so far is saved

Any other exception that reaches the error boundary in `convo_cli.cli.app` is a bug: convo shows a
traceback and exits with 1.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_PATH = r"(?:(?:\w{1,60}|<locals>)\.){0,12}"
_REPR = re.compile(
    rf"<class '{_PATH}(\w{{1,60}})'>"
    rf"|<(?:function |bound method )?{_PATH}(\w{{1,60}})(?: of <?{_PATH}\w{{1,60}})?(?: object)?"
    r" at 0x[0-9a-f]{1,16}>{1,8}"
)


@dataclass(frozen=True, slots=True)
class ProblemDetail:
    """One problem of an error, for `--json`; a field that does not apply is None."""

    message: str
    """What is wrong, without place and hint."""
    file: str | None = None
    line: int | None = None
    """Counted from 1."""
    column: int | None = None
    """Counted from 1."""
    key: str | None = None
    """Dotted config key, or the path of a value in a line of data."""
    hint: str | None = None


class ConvoError(Exception):
    """An error with its place, both values if two disagree, and a hint that the user can act on.

    ``problems`` lists the problems that the message names, for `--json`.
    """

    exit_code = 1

    def __init__(
        self, message: str, *, hint: str | None = None, problems: Sequence[ProblemDetail] = ()
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.problems = tuple(problems)


class UsageError(ConvoError):
    exit_code = 2


class ConfigError(UsageError):
    pass


class ModelError(UsageError):
    pass


class ModelNotFoundError(ModelError):
    pass


class OutOfMemoryError(UsageError):
    pass


class DataError(ConvoError):
    exit_code = 3


class DivergedError(ConvoError):
    exit_code = 4


class EvaluationDivergedError(DivergedError):
    """The weights of a checkpoint have no finite validation loss; a resume would fail again."""


class CheckpointError(ConvoError):
    exit_code = 5


class ChangedError(ConvoError):
    exit_code = 6


class FileChangedError(ChangedError):
    pass


class DiskError(ConvoError):
    exit_code = 7


class RankLostError(ConvoError):
    exit_code = 137


class StoppedError(ConvoError):
    """A signal stopped the command at a safe point; the exit code is 128 + the signal number."""

    def __init__(self, signal_number: int, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = 128 + signal_number


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the system, numpy or torch ran out of memory."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, MemoryError):
        return True
    # torch has no exception type for this on the CPU.
    words = ("out of memory", "allocate memory", "bad_alloc")
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)


def refused_by_system(error: BaseException) -> UsageError | None:
    """Return the refusal of a long path, too many open files or another thread, else None."""
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, OSError) and number == errno.ENAMETOOLONG and error.filename is not None:
        return path_too_long(os.fsdecode(error.filename))
    if number in (errno.EMFILE, errno.ENFILE) or os.strerror(errno.EMFILE) in str(error):
        return UsageError(
            "too many open files: the limit of this shell is too low for convo",
            hint="raise it: ulimit -n 1024",
        )
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return UsageError(
            "the system starts no more threads: memory or the limit of processes is used up",
            hint="free memory, or raise the limits of this shell: ulimit -d, ulimit -v, ulimit -u",
        )
    return None


def path_too_long(path: str) -> UsageError:
    """Return the refusal of a path that the system calls too long; it shows only a part of it."""
    longest = max(Path(path).parts, key=lambda name: len(os.fsencode(name)))
    what, name = ("path", path) if len(os.fsencode(longest)) < 256 else ("name", longest)
    shown = name if len(name) <= 60 else f"{name[:40]}…{name[-15:]}"
    return UsageError(
        f"{shown}: this {what} is too long ({len(os.fsencode(name))} bytes)",
        hint="most systems allow 255 bytes in a name and 4095 in a path",
    )


def first_line(error: BaseException) -> str:
    """Return the first line of a library's error, or the name of its type if it has no text.

    Reprs of Python's classes and objects become plain names.
    """
    first, *others = (str(error).strip() or type(error).__name__).splitlines()
    line = f"{first} {others[0].strip()}" if first.endswith(":") and others else first
    if type(error) is KeyError:  # its text is only the repr of the key
        line = f"there is no {line}"
    return _REPR.sub(lambda found: found[1] or found[2], line)


def typeable(path: Path | str) -> str:
    """Return a path as typed into a shell, for the commands in hints.

    Characters that are not printable become escapes.
    """
    return _typeable_text(f"./{path}" if str(path).startswith("-") else str(path))


def typeable_option(name: str, value: str) -> str:
    """Return an option with its value as typed into a shell; the value may begin with a dash."""
    return f"{name}{'=' if value.startswith('-') else ' '}{_typeable_text(value)}"


def _typeable_text(text: str) -> str:
    quoted = shlex.quote(text)
    if quoted.isprintable():
        return quoted
    plain = set(range(32, 127)) - set(b"\\'")
    escaped = (chr(byte) if byte in plain else f"\\{byte:03o}" for byte in os.fsencode(text))
    return f"$'{''.join(escaped)}'"


def expand_home(path: str) -> str:
    """Replace a leading ``~`` or ``~user`` that a shell did not; UsageError without such a home."""
    if not path.startswith("~"):
        return path
    name = Path(path).parts[0][1:]
    expanded = os.path.expanduser(path)  # noqa: PTH111 - `Path.expanduser` would normalise the path
    if expanded == path and name:
        raise UsageError(
            f"{path}: there is no user {name}", hint=f"for a file with that name, write ./{path}"
        )
    if expanded == path or (not name and os.environ.get("HOME") == ""):
        raise UsageError(
            f"{path}: the home folder is unknown", hint="set HOME, or write the full path"
        )
    return expanded
