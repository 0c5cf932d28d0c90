"""Errors as JSON, so that one process can tell the others why it failed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from convo_cli import errors
from convo_cli.errors import (
    ConvoError,
    OutOfMemoryError,
    StoppedError,
    first_line,
    is_out_of_memory,
)


def as_record(error: Exception) -> list[Any]:
    """Return class, exit code, message and hint; a foreign error becomes a ConvoError."""
    if isinstance(error, ConvoError):
        # The nearest class of convo_cli.errors, because a subclass may need other arguments.
        kind = next(one for one in type(error).__mro__ if one.__module__ == errors.__name__)
        return [kind.__name__, error.exit_code, error.message, error.hint]
    code = OutOfMemoryError.exit_code if is_out_of_memory(error) else ConvoError.exit_code
    return [ConvoError.__name__, code, f"{type(error).__name__}: {first_line(error)}", None]


def as_error(record: Sequence[Any], process: str) -> ConvoError:
    """Return another process's error; the message names the process, unless it is a stop."""
    name, code, message, hint = record
    if name == StoppedError.__name__:
        return StoppedError(code - 128, message, hint=hint)
    kind: type[ConvoError] = getattr(errors, name)
    error = kind(f"{process}: {message}", hint=hint)
    error.exit_code = code
    return error
