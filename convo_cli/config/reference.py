"""Renderings of the schema: a commented config.yaml, the JSON Schema and docs/config.md.

`python -m convo_cli.config.reference docs/config.md` writes that page.
"""

from __future__ import annotations

import io
import json
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.representer import RoundTripRepresenter
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from convo_cli.config.keys import Key, config_keys, in_words, keys_in
from convo_cli.config.presets import Preset
from convo_cli.config.reading.config_text import MAX_BYTES
from convo_cli.config.schema import TRAIN_ITEMS, RunConfig

SCHEMA_FILE = "convo.schema.json"
WIDTH = 100
LIMITS_COLUMN = 32

_MAKE_SCHEMA = f"convo init-config --schema -o {SCHEMA_FILE}"
_REFERENCE_INTRODUCTION = """# Configuration

Every key of a convo config, generated from `convo_cli/config/schema.py` by `make docs`.
`convo init-config -o config.yaml` writes a file to start from, with these texts as comments and,
beside it, the JSON Schema with which an editor completes and checks the file.

- The file is YAML 1.2 in UTF-8: `1e-4` is a number, `no` is text. JSON is also YAML 1.2, so a
  `config.json` works too. Anchors, aliases, tags and duplicate keys are refused.
- An unknown key, a wrong type or a value out of range is an error with its line and column, never
  ignored.
- `--set KEY=VALUE` changes one key for one command: `--set training.learning_rate=3e-4`, or for a
  list `--set "data.train=[a.jsonl, b.jsonl]"`. Null switches a whole section off:
  `--set model.scratch=null`.
- The run directory keeps the resolved config, with every default written out, as `config.yaml`."""


class _Representer(RoundTripRepresenter):
    """Writes null as a word; ruamel.yaml would leave the value out."""


_Representer.add_representer(
    type(None),
    lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null"),
)


def commented_yaml(preset: Preset) -> str:
    """Return every key with the preset's value and its documentation.

    `load_config` reads it as `preset.config()`.
    """
    about = " ".join(part for part in (preset.description, preset.note, preset.data_note) if part)
    about = textwrap.fill(f"Preset {preset.name}: {about}", WIDTH - 2)
    return config_yaml(preset.config(), about.splitlines(), preset.reasons)


def config_yaml(config: RunConfig, about: Sequence[str], reasons: Mapping[str, str]) -> str:
    """Return every key with its documentation and the reason for its value.

    The lines ``about`` the config become comments at the top.
    """
    yaml = YAML()
    yaml.Representer = _Representer
    yaml.width = MAX_BYTES
    stream = io.StringIO()
    yaml.dump(_section("", config.model_dump(mode="json"), reasons), stream)
    return _header(about) + stream.getvalue()


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a config file, for editors and other programs."""
    schema = RunConfig.model_json_schema()
    for section in (schema, *schema["$defs"].values()):
        for prop in section["properties"].values():
            if prop.get("items") in ({"type": "string"}, TRAIN_ITEMS):
                prop["type"] = ["array", "string"]  # a single text means a list of one
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "convo config",
    }


def config_reference() -> str:
    """Return docs/config.md: every key with its type, range, default and meaning."""
    parts = [_REFERENCE_INTRODUCTION]
    for section in ("", *(key.path for key in config_keys().values() if key.is_section)):
        title = f"## `{section}`\n\n{config_keys()[section].doc}" if section else "## Top level"
        rows = [_reference_row(key) for key in keys_in(section) if not key.is_section]
        table = "\n".join(("| key | value | default | meaning |", "|---|---|---|---|", *rows))
        parts.append(f"{title}\n\n{table}" if rows else title)
    return "\n\n".join(parts) + "\n"


def _header(about: Sequence[str]) -> str:
    comments = "\n".join(f"# {line}".rstrip() for line in about)
    return (
        f"# yaml-language-server: $schema=./{SCHEMA_FILE}\n"
        "# With the line above, an editor completes and checks this file. To write the schema:\n"
        f"#   {_MAKE_SCHEMA}\n#\n"
        f"{comments}\n"
        "# A key that is left out has its default.\n\n"
    )


def _section(
    name: str, values: Mapping[str, Any], reasons: Mapping[str, str], indent: int = 0
) -> CommentedMap:
    section = CommentedMap()
    for key in keys_in(name):
        value = values[key.name]
        reason = reasons.get(key.path, "")
        limits = _limits(key)
        is_wide = len(limits) > WIDTH - LIMITS_COLUMN - 2
        doc = f"{_comment(key, value)} Allowed: {limits}." if is_wide else _comment(key, value)
        paragraphs = filter(None, (doc, reason))
        comment = "\n".join(textwrap.fill(text, WIDTH - indent - 2) for text in paragraphs)
        if isinstance(value, dict) and key.is_section:
            value = _section(key.path, value, reasons, indent + 2)
        elif isinstance(value, list):
            value = CommentedSeq(map(_item, value))
            value.fa.set_flow_style()
        section[key.name] = value
        blank = "\n" if key.is_section and not indent else ""
        section.yaml_set_comment_before_after_key(key.name, before=blank + comment, indent=indent)
        if limits and not is_wide:
            section.yaml_add_eol_comment(limits, key.name, column=LIMITS_COLUMN)
    return section


def _item(value: Any) -> Any:
    if isinstance(value, dict):
        return CommentedMap((key, _item(inner)) for key, inner in value.items())
    # In a flow list, ruamel.yaml 0.19 omits quotes that a text like "?a" needs.
    needs_quotes = isinstance(value, str) and not re.fullmatch(r"[\w./-]+", value)
    return DoubleQuotedScalarString(value) if needs_quotes else value


def _comment(key: Key, value: Any) -> str:
    if key.is_section and value is None:
        return f"{key.doc} Its keys: {', '.join(inner.name for inner in keys_in(key.path))}."
    return key.doc


def _limits(key: Key) -> str:
    """Return the range or choices, unless the documentation already states them."""
    if key.types & {"string", "array"} and "integer" not in key.types:
        return "" if all(choice in key.doc for choice in key.choices) else in_words(key.choices)
    words = [choice for choice in key.choices if "integer" in key.types]
    return " or ".join([*words, key.limits]) if key.limits else ""


def _reference_row(key: Key) -> str:
    default = "required" if key.is_required else f"`{json.dumps(key.default)}`"
    cells = (f"`{key.path}`", key.allowed, default, key.doc)
    return "| " + " | ".join(re.sub(r"([<|])", r"\\\1", cell) for cell in cells) + " |"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(config_reference(), encoding="utf-8", newline="\n")
