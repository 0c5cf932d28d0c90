"""View of `init-config`: a config, the JSON Schema or the presets, as text and for `--json`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from convo_cli.config.presets import Preset
from convo_cli.data.sizing.choices import Sizing


class Document(NamedTuple):
    """A result as text and as values for `--json`."""

    text: str
    """A whole file."""
    record: Mapping[str, Any]
    """The keys of the `--json` object."""


def preset_list(presets: Iterable[Preset]) -> Document:
    """Return the presets, one per line."""
    presets = list(presets)
    return Document(
        text="".join(f"{preset.name:15} {preset.description}\n" for preset in presets),
        record={
            "presets": [
                {"name": preset.name, "description": preset.description} for preset in presets
            ]
        },
    )


def schema_document(schema: Mapping[str, Any]) -> Document:
    """Return the JSON Schema, indented."""
    return Document(text=json.dumps(schema, indent=2) + "\n", record={"schema": schema})


def config_document(
    preset: str, values: Mapping[str, Any], yaml: str, sizing: Sizing | None
) -> Document:
    """Return a config; ``yaml`` explains every key of ``values``."""
    chosen = None if sizing is None else {"summary": sizing.summary, "values": sizing.values}
    record = {"preset": preset, "config": values, "yaml": yaml, "sizing": chosen}
    return Document(text=yaml, record=record)
