"""Modelfiles as Ollama reads them, and the literals of Go's templates.

`read_modelfile` is written after Ollama's parser/parser.go.
"""

from __future__ import annotations

import json
import re

COMMANDS = {"from", "template", "system", "parameter", "license", "adapter", "message"}


def read_modelfile(text: str) -> list[tuple[str, str]]:
    """Return names and values; a parameter has its own name. AssertionError if Ollama refuses."""
    found = list[tuple[str, str]]()
    lines = iter(re.split(r"(?<=[\r\n])", text))
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        name, _, value = line.partition(" ")
        assert value
        assert name.lower() in COMMANDS
        if name.lower() == "parameter":
            name, value = value.split(" ", 1)
            assert re.fullmatch("[A-Za-z0-9_]+", name)
        while (whole := unquote(printed(value).strip())) is None:
            value += next(lines)  # StopIteration: quotes without an end
        found.append((name.lower(), whole))
    return found


def printed(text: str) -> str:
    """Return the characters of a value that Ollama keeps."""
    return "".join(letter for letter in text if letter.isprintable() or letter in "\t\r\n")


def unquote(value: str) -> str | None:
    for quotes in ('"""', '"'):
        if value.startswith(quotes):
            is_whole = len(value) >= 2 * len(quotes) and value.endswith(quotes)
            return value[len(quotes) : -len(quotes)] if is_whole else None
    return value


def written_by(source: str) -> str:
    """Return the text that Go writes for source that holds only texts and literals."""
    parts = re.split(r'\{\{ ("(?:[^"\\]|\\.)*") \}\}', source)
    assert not any("{{" in part for part in parts[::2])
    wide = re.compile(r"\\U([0-9a-f]{8})")
    literals = [wide.sub(lambda match: chr(int(match[1], 16)), part) for part in parts[1::2]]
    return "".join(
        json.loads(literals[index // 2]) if index % 2 else part for index, part in enumerate(parts)
    )
