"""Commands that convert a data file, as a hint prints them with the name of the file.

A file may come from anywhere, so its keys and names are quoted twice: a key becomes a string of jq
that holds only printable ASCII and no single quote, and the program is quoted for the shell.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import NamedTuple

from convo_cli.errors import typeable, typeable_option

OUTPUT, _SECOND_OUTPUT = "out.jsonl", "out2.jsonl"
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_UNPACKING = {".gz": "gzip -dc", ".zst": "zstd -dc"}


class Conversion(NamedTuple):
    """A command that writes a converted copy of a file, without the name of the file."""

    before: str
    """Everything before the name of the file."""
    after: str
    """Everything after it."""
    note: str
    """What the command does, or what to check in it."""
    is_unpacking: bool = False
    """True if the command reads a compressed file."""
    speaker: str = ""
    """The person of a chat that the model becomes; any other one would do as well."""

    def hint(self, file: str) -> str:
        """Return the hint for a problem in ``file``; "" or "-" stand for an unknown name."""
        name = typeable(file) if file not in ("", "-") else "FILE"
        after = self.after
        if file.endswith(OUTPUT):  # a command may not overwrite what it reads
            after = after.replace(f" {OUTPUT}", f" {_SECOND_OUTPUT}")
        suffix = file[file.rfind(".") :].lower()
        if suffix in _UNPACKING and not self.is_unpacking:
            return f"{self.note}: {_UNPACKING[suffix]} {name} | {self.before}{after}"
        return f"{self.note}: {self.before} {name}{after}"


def as_hint(hint: str | Conversion, file: str) -> str:
    """Return a hint with the name of the file."""
    return hint.hint(file) if isinstance(hint, Conversion) else hint


def by_jq(program: str, note: str, flags: str = "-c", more_files: str = "") -> Conversion:
    """Return a conversion by jq 1.6 or later; ``program`` holds keys only as `jq_string`."""
    return Conversion(f"jq {flags} {shlex.quote(program)}", f"{more_files} > {OUTPUT}", note)


def by_import(note: str, assistant: str = "") -> Conversion:
    """Return a conversion by ``convo import``; the model becomes the speaker ``assistant``."""
    option = f" {typeable_option('--assistant', assistant)}" if assistant else ""
    return Conversion(
        "convo import", f"{option} -o {OUTPUT}", note, is_unpacking=True, speaker=assistant
    )


def by_chat_import(assistant: str) -> Conversion:
    """Return a conversion of a chat; the model becomes this person, or NAME if it is unknown."""
    return by_import(
        "choose with --assistant whose messages the model learns to write", assistant or "NAME"
    )


def by_fix(note: str) -> Conversion:
    """Return a conversion by ``convo validate-data --fix``."""
    return Conversion("convo validate-data", f" --fix {OUTPUT}", note, is_unpacking=True)


def jq_string(text: str) -> str:
    """Return a text as a string of jq that needs no quoting for a shell but single quotes."""
    return json.dumps(text).replace("'", "\\u0027").replace("\x7f", "\\u007f")


def jq_path(key: str) -> str:
    """Return the value of a key in a jq program: .messages, or .["a key"]."""
    return f".{key}" if _PLAIN_KEY.fullmatch(key) else f".[{jq_string(key)}]"
