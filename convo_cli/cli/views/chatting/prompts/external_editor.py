"""The user's own editor for a text: $VISUAL or $EDITOR.

prompt_toolkit's own command waits for a key when the editor leaves bytes that are not UTF-8.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from convo_cli.errors import UsageError

_USUAL = ("editor", "nano", "vi")


def edited(text: str) -> str:
    """Return a text as the user left it in $VISUAL or $EDITOR.

    Raises UsageError if there is no editor, or if it fails.
    """
    words = _command()
    descriptor, name = tempfile.mkstemp(prefix="convo-", suffix=".txt")  # of mode 0600
    path = Path(name)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        try:
            code = subprocess.call([*words, name])
        except OSError as error:
            raise UsageError(f"{words[0]}: {error.strerror}") from None
        if code != 0:
            raise UsageError(f"{words[0]} ended with exit code {code}; the text is as before")
        return path.read_bytes().decode("utf-8", "replace").removesuffix("\n")
    finally:
        path.unlink(missing_ok=True)


def _command() -> list[str]:
    """Return the editor's command."""
    for name in ("VISUAL", "EDITOR"):
        command = os.environ.get(name, "").strip()
        if not command:
            continue
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise UsageError(f"${name} is not a command: {error}") from None
        if shutil.which(words[0]) is None:
            raise UsageError(f"${name}: {command}: no such program")
        return words
    for editor in _USUAL:
        if shutil.which(editor):
            return [editor]
    raise UsageError("there is no editor; set $EDITOR, for example to nano")
