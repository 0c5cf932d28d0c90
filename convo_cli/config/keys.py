"""Flat table of all config keys, read from the schema.

Error messages, the commented YAML and docs/config.md take their descriptions of keys from here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from convo_cli.config.schema import RunConfig


@dataclass(frozen=True, slots=True)
class Key:
    """One key; ``path`` is its dotted name."""

    path: str
    doc: str
    types: frozenset[str]
    """JSON types: integer, number, string, boolean, array (of texts), null and object (a section).

    A list of two numbers is a pair, an object with any keys a mapping.
    """
    choices: tuple[str, ...]
    limits: str
    """The range in words, such as 'at least 1'; empty if there is none."""
    default: Any
    is_required: bool

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]

    @property
    def section(self) -> str:
        """Dotted name of the section around the key; empty at the top."""
        return self.path.rpartition(".")[0]

    @property
    def is_section(self) -> bool:
        return "object" in self.types

    @property
    def is_mapping(self) -> bool:
        """Return whether the names inside are free."""
        return "mapping" in self.types

    @property
    def allowed(self) -> str:
        """The allowed values in words."""
        if {"integer", "array"} <= self.types:
            return "a whole number, 1 to 65,535, a list of whole numbers from 0 on, or auto"
        kind = (
            _KIND_OF.get(self.path)
            or in_words(self.choices)
            or next(words for name, words in _KINDS.items() if name in self.types)
        )
        limited = f"{kind}, {self.limits}" if self.limits else kind
        return f"{limited}, or null" if "null" in self.types else limited


_KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "text or a list of texts",
    "pair": "a list of 2 numbers",
    "mapping": "a mapping of names to values",
    "object": "a section of keys",
    "string": "text",
}
_KIND_OF = {
    "data.train": "text, or a list of texts and {path: FILE, weight: NUMBER}",
    "model.lora.target_modules": "text or a list of texts",
    "training.micro_batch_size": "auto or a whole number",
}
"""Kinds of keys that have a form of their own."""


@cache
def config_keys() -> Mapping[str, Key]:
    """Return every section and key by its dotted name, in the order of the schema."""
    schema = RunConfig.model_json_schema()
    return {key.path: key for key in _walk(schema, "", schema["$defs"])}


def keys_in(section: str) -> tuple[Key, ...]:
    """Return the keys and sections directly inside a section; an empty name is the whole file."""
    return tuple(key for key in config_keys().values() if key.section == section)


def value_of(config: RunConfig, path: str) -> Any:
    """Return the value of a dotted key, as it is in JSON."""
    value: Any = config.model_dump(mode="json")
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def in_words(items: Sequence[str]) -> str:
    """Join with commas and a final 'or'."""
    return " or ".join(part for part in (", ".join(items[:-1]), *items[-1:]) if part)


def _walk(section: Mapping[str, Any], prefix: str, definitions: Mapping[str, Any]) -> Iterator[Key]:
    for name, prop in section.get("properties", {}).items():
        variants = [_resolve(variant, definitions) for variant in prop.get("anyOf", [prop])]
        facts: dict[str, Any] = {}
        for variant in variants:
            facts |= variant
        key = Key(
            path=prefix + name,
            doc=" ".join(prop.get("description", "").split()),
            types=frozenset(map(_type, variants)),
            choices=tuple(facts.get("enum", [facts["const"]] if "const" in facts else ())),
            limits=_limits(facts),
            default=prop.get("default"),
            is_required=name in section.get("required", ()),
        )
        yield key
        yield from _walk(facts, f"{key.path}.", definitions)


def _type(variant: Mapping[str, Any]) -> str:
    if "prefixItems" in variant:
        return "pair"
    stated: str = variant["type"]
    return "mapping" if stated == "object" and "properties" not in variant else stated


def _resolve(prop: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    reference: str = prop.get("$ref", "")
    return definitions[reference.rpartition("/")[2]] if reference else prop


def _limits(facts: Mapping[str, Any]) -> str:
    if facts.get("minLength") or (facts.get("minItems") and "prefixItems" not in facts):
        return "not empty"
    low, high = facts.get("minimum"), facts.get("maximum")
    if facts.get("type") == "integer" and "exclusiveMaximum" in facts:
        high = facts["exclusiveMaximum"] - 1
    if low is not None and high is not None:
        return f"{_number(low)} to {_number(high)}"
    parts = (
        ("at least", low),
        ("above", facts.get("exclusiveMinimum")),
        ("at most", high),
        ("below", facts.get("exclusiveMaximum")),
    )
    return ", ".join(f"{words} {_number(limit)}" for words, limit in parts if limit is not None)


def _number(limit: float) -> str:
    return f"{limit:g}" if isinstance(limit, float) and limit < 1e6 else f"{int(limit):,}"
