"""Values and places of a config while its text is read, within limits of depth and size."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import ScalarNode

from convo_cli.config.places import KeyPath, Place, Problem, Source

MAX_DEPTH = 20
MAX_NODES = 20_000
MAX_NUMBER_LENGTH = 100

NOT_TEXT = re.compile("[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that a text file does not contain: most controls, and halves of surrogate pairs."""

_HALF = re.compile("[\ud800-\udfff]")
_YAML = YAML(typ="safe", pure=True)
_TYPES = {
    "tag:yaml.org,2002:null": _YAML.constructor.construct_yaml_null,
    "tag:yaml.org,2002:bool": _YAML.constructor.construct_yaml_bool,
    "tag:yaml.org,2002:int": _YAML.constructor.construct_yaml_int,
    "tag:yaml.org,2002:float": _YAML.constructor.construct_yaml_float,
}


def plain_value(text: str) -> Any:
    """Return the YAML 1.2 value of a text without quotes: None, a bool, a number or the text."""
    tag = str(_YAML.resolver.resolve(ScalarNode, text, (True, False)))
    if tag in _TYPES and len(text) <= MAX_NUMBER_LENGTH:
        return _TYPES[tag](ScalarNode(tag, text))
    return text


@dataclass(frozen=True, slots=True)
class RepeatedKey(Problem):
    """The problem of a key that is given twice."""

    is_first_null: bool = False
    """Whether the first value is null: a placeholder that the second value fills."""


class SourceBuilder:
    """Collects what a reader finds in one text."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.result = Source()
        self._num_nodes = 0

    def count(self) -> None:
        """Raise ConfigError if the text has more keys and values than any config."""
        self._num_nodes += 1
        if self._num_nodes > MAX_NODES:
            message = f"more than {MAX_NODES:,} keys and values; this is not a config"
            raise Problem(Place(self.source), (), message).error()

    def require_depth(self, place: Place, depth: int) -> None:
        """Raise ConfigError for a value that is nested deeper than in any config."""
        if depth > MAX_DEPTH:
            message = f"nested more than {MAX_DEPTH} levels deep; this is not a config"
            raise Problem(place, (), message).error()

    def plain(self, path: KeyPath, place: Place, text: str) -> Any:
        """Record the place of a value without quotes and return the value."""
        # YAML's parser places a missing value at the next item; the place of its key helps more.
        self.result.values[path] = (
            replace(place, text=text) if text else self.result.keys.get(path, place)
        )
        return plain_value(text)

    def quoted(self, path: KeyPath, place: Place, text: str) -> str:
        """Record the place of a text in quotes and return the text."""
        text = _joined(text)
        if found := NOT_TEXT.search(text):
            self.problem(place, path, f"contains U+{ord(found[0]):04X}, which is not text")
        self.result.values[path] = replace(place, text=json.dumps(text, ensure_ascii=False))
        return text

    def key(self, path: KeyPath, place: Place, mapping: Mapping[str, Any]) -> None:
        """Record the place of a key; a duplicate of one in ``mapping`` becomes a problem."""
        if path in self.result.keys:
            message = f"given twice, first on line {self.result.keys[path].line}"
            is_first_null = mapping.get(str(path[-1]), "") is None
            self.result.problems.append(RepeatedKey(place, path, message, "", is_first_null))
        self.result.keys[path] = place

    def problem(self, place: Place, path: KeyPath, message: str) -> None:
        self.result.problems.append(Problem(place, path, message))


def key_name(text: str) -> str | None:
    """Return the name of a key, or None for a text with half of a surrogate pair."""
    name = _joined(text)
    return None if _HALF.search(name) else name


def _joined(text: str) -> str:
    """Join surrogate pairs, which JSON writes as two escapes."""
    if not _HALF.search(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
