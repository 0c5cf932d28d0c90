"""Bounded reader of the metadata of a foreign model card: the YAML block at its beginning.

Only texts and lists of texts at the first level are read, from the parser's events. So no alias is
resolved, no object is built, and depth and size have limits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import (
    CollectionEndEvent,
    CollectionStartEvent,
    Event,
    MappingStartEvent,
    ScalarEvent,
    SequenceStartEvent,
)

from convo_cli.export.format import CARD_FILE
from convo_cli.storage.files import only_regular

KEYS = ("license", "license_name", "license_link", "base_model", "base_model_relation", "language")
"""The keys that are read."""
_MAX_BYTES = 2**17  # of the block; a second of parsing
_MAX_DEPTH = 20  # the parser's time grows with the square of the depth
_MAX_TEXTS = 100
_MAX_TEXT = 300  # characters
_NOTHING = {"~", "null", "Null", "NULL"}


def read_front_matter(folder: Path) -> Mapping[str, list[str]]:
    """Return the texts of each of `KEYS` that the card in a folder has.

    A link is followed only from a snapshot of the hub's cache to its blobs. Empty if there is no
    card, or if it cannot be read.
    """
    file = folder / CARD_FILE
    if folder.parent.name == "snapshots" and file.is_symlink():
        file = file.resolve()
        if file.parent != folder.resolve().parent.parent / "blobs":
            return {}
    try:
        with open(file, "rb", opener=only_regular) as opened:
            text = _block(opened.read(_MAX_BYTES))
        return {} if text is None else _entries(YAML(typ="safe", pure=True).parse(text))
    # The last three: damaged UTF-8, an escape above U+10FFFF, and a parser's own limits.
    except (OSError, YAMLError, ValueError, OverflowError, RecursionError):
        return {}


def _block(content: bytes) -> str | None:
    """Return the lines between the two lines of dashes; None if they are not there."""
    lines = content.removeprefix(b"\xef\xbb\xbf").lstrip().splitlines()
    ends = [index for index, line in enumerate(lines) if line.rstrip(b" \t") == b"---"][:2]
    if len(ends) < 2 or ends[0] != 0:
        return None
    return b"\n".join(lines[1 : ends[1]]).decode()


def _entries(events: Iterator[Event]) -> dict[str, list[str]]:
    """Return what is read of a mapping's events; the first of equal keys counts."""
    found: dict[str, list[str]] = {}
    depth, key, is_key = 0, "", True
    for event in events:
        if isinstance(event, CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH or (depth == 1 and not isinstance(event, MappingStartEvent)):
                return {}
            if depth == 2 and (is_key or not isinstance(event, SequenceStartEvent)):
                key = ""  # neither a text nor a list of texts
            elif depth > 2:
                found.pop(key, None)
                key = ""
        elif isinstance(event, CollectionEndEvent):
            depth -= 1
            is_key = not is_key if depth == 1 else is_key
        elif depth == 1:
            text = event.value if isinstance(event, ScalarEvent) else ""
            if is_key:
                key = text if text in KEYS and text not in found else ""
            else:
                _add(found, key, event)
            is_key = not is_key
        elif depth == 2:
            _add(found, key, event)
    return found


def _add(found: dict[str, list[str]], key: str, event: Event) -> None:
    if not key or not isinstance(event, ScalarEvent):
        return
    text = event.value
    is_nothing = not text.strip() or (event.style is None and text in _NOTHING)
    if not is_nothing and len(text) <= _MAX_TEXT and len(found.get(key, ())) < _MAX_TEXTS:
        found.setdefault(key, []).append(text)
