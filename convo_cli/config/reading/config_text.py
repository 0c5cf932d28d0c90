"""Text of a config file: a small file of UTF-8 without control characters, in YAML or JSON."""

from __future__ import annotations

import codecs
import errno
import json
import re
from collections.abc import Callable
from pathlib import Path

from convo_cli.config.places import SHOW_FORM, Place, Problem, Source
from convo_cli.config.reading.building import NOT_TEXT
from convo_cli.config.reading.json_source import parse_json
from convo_cli.config.reading.yaml_source import parse_yaml
from convo_cli.errors import ConfigError, path_too_long, typeable

MAX_BYTES = 2**20

_TOML = re.compile(r"\[[\w.-]+\]|[\w.-]+\s*=")


def read_text(path: Path, opener: Callable[[str, int], int] | None = None) -> str:
    """Read a config file; the error for anything else says what the file is."""
    place = Place(str(path))
    try:
        with open(path, "rb", opener=opener) as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise Problem(place, (), "no such file").error(
            f"convo init-config -o {typeable(path)}"
        ) from None
    except IsADirectoryError:
        inside = path / "config.yaml"
        hint = f"try {inside}" if inside.is_file() else SHOW_FORM
        raise Problem(place, (), "this is a directory, not a config file").error(hint) from None
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            raise path_too_long(str(path)) from None
        reason = error.strerror if isinstance(error, OSError) else error
        raise Problem(place, (), f"cannot be read: {reason}").error() from None
    if len(content) > MAX_BYTES:
        message = f"larger than {MAX_BYTES:,} bytes; a config has a few thousand"
        raise Problem(place, (), message).error(SHOW_FORM)
    if content.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        hint = f"convert it: iconv -f UTF-32 -t UTF-8 {typeable(path)} > new.yaml"
        raise Problem(place, (), "UTF-32 text; a config is UTF-8").error(hint)
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        message = "UTF-16 text, which PowerShell's > writes; a config is UTF-8"
        hint = f"write it without >: convo init-config -o {typeable(path)}"
        raise Problem(place, (), message).error(hint)
    return _decoded(content.removeprefix(codecs.BOM_UTF8), str(path))


def parse_config(text: str, source: str) -> Source:
    """Parse a config: one mapping in YAML or JSON; the error for anything else says what it is."""
    place = Place(source)
    stripped = (line.strip() for line in text.splitlines())
    lines = [line for line in stripped if line and not line.startswith("#")]
    if not lines:
        raise Problem(place, (), "the file is empty").error(SHOW_FORM)
    if _TOML.match(lines[0]):
        raise Problem(place, (), "this is TOML; a config is YAML").error(SHOW_FORM)
    if len(lines) > 1 and all(map(_is_json, lines[:2])):
        message = "this is a file of dialogues, not a config"
        hint = f"convo init-config --train {typeable(source)} -o config.yaml"
        raise Problem(place, (), message).error(hint)
    parsed = _parse_braces(text, source) if lines[0].startswith("{") else parse_yaml(text, source)
    if not isinstance(parsed.value, dict):
        found = "a list" if isinstance(parsed.value, list) else "a single value"
        raise Problem(place, (), f"found {found}; a config is keys with values").error(SHOW_FORM)
    return parsed


def _parse_braces(text: str, source: str) -> Source:
    """Parse JSON or YAML that begins with a brace; if it is neither, the error is that of JSON."""
    try:
        return parse_json(text, source)
    except ConfigError as json_error:
        try:
            return parse_yaml(text, source)
        except ConfigError as yaml_error:
            has_json_key = re.match(r'\s*\{\s*"', text)
            raise (json_error if has_json_key else yaml_error) from None


def _is_json(line: str) -> bool:
    """Return whether a line is a whole JSON list or object."""
    try:
        return isinstance(json.loads(line), list | dict)
    except (ValueError, RecursionError):
        return False


def _decoded(content: bytes, source: str) -> str:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        place = place_at(content[: error.start].decode("utf-8"), source)
        message = f"byte 0x{content[error.start]:02x} is not UTF-8 text"
        raise Problem(place, (), message).error() from None
    if found := NOT_TEXT.search(text):
        message = f"control character U+{ord(found[0]):04X}; a config is plain text"
        raise Problem(place_at(text[: found.start()], source), (), message).error()
    return text


def place_at(before: str, source: str) -> Place:
    """Return the place of the character that follows the text ``before``."""
    lines = f"{before}|".splitlines()
    return Place(source, len(lines), len(lines[-1]))
