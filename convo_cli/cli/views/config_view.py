"""View of `init-config`: a config, the JSON Schema or the presets, as text and for `--json`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from convo_cli.cli.console import print_line
from convo_cli.config.forerunners.config_conversion import Conversion
from convo_cli.config.forerunners.old_config import Answer, Status
from convo_cli.config.places import clipped
from convo_cli.config.presets import Preset
from convo_cli.config.reference import config_yaml
from convo_cli.data.sizing.choices import Sizing
from convo_cli.errors import typeable

if TYPE_CHECKING:
    from rich.console import Console

    from convo_cli.data.roles.proposal import Proposal


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
    record = {"preset": preset, "config": values, "yaml": yaml, "sizing": chosen, "converted": None}
    return Document(text=yaml, record=record)


def converted_document(conversion: Conversion) -> Document:
    """Return the config of a conversion; comments at the top say what became of each old key."""
    form = conversion.form
    about = [f"Converted from {clipped(conversion.path)}, a config of {form.tool} ({form.title}):"]
    about += [
        f"  line {answer.place.line} {_line(conversion, answer)}" for answer in conversion.answers
    ]
    yaml = config_yaml(conversion.config, about, conversion.reasons)
    record = {
        "preset": None,
        "config": conversion.config.model_dump(mode="json"),
        "yaml": yaml,
        "sizing": None,
        "converted": {
            "file": conversion.path,
            "tool": form.tool,
            "form": form.title,
            "answers": [_answer(conversion, answer) for answer in conversion.answers],
        },
    }
    return Document(text=yaml, record=record)


def conversion_lines(conversion: Conversion, *, is_quiet: bool) -> list[str]:
    """Return a line for each old key, and a summary; if quiet, only the unsupported keys."""
    lines = []
    for answer in conversion.answers:
        line = f"{answer.place} {_line(conversion, answer)}"
        if answer.status == "unsupported":
            lines.append(f"warning: {line}")
        elif not is_quiet:
            lines.append(line)
    if not is_quiet:
        counts = ", ".join(
            f"{conversion.count(status)} {words}"
            for status, words in _IN_WORDS.items()
            if conversion.count(status)
        )
        form = conversion.form
        lines.append(f"{conversion.path}: a config of {form.tool} ({form.title}): {counts}")
    return lines


def show_proposals(console: Console, proposals: Mapping[str, Proposal], options: str) -> None:
    """Print the mapping that each file probably needs, as a command and as lines of a config."""
    for file, proposal in proposals.items():
        print_line(
            console,
            f"probable mapping of {file}, inferred from {proposal.reason}; check it before use",
            "bold",
        )
        print_line(console, f"  convo validate-data {typeable(file)}{options} {proposal.options}")
        console.print()
        for line in proposal.yaml.splitlines():
            print_line(console, f"  {line}")
        console.print()


_IN_WORDS: Mapping[Status, str] = {
    "mapped": "keys mapped",
    "not needed": "not needed",
    "unsupported": "not supported",
}


def _line(conversion: Conversion, answer: Answer) -> str:
    """Return an old key with its value, and what became of it."""
    becomes = conversion.becomes(answer).items()
    result = ", ".join(f"{key}: {clipped(json.dumps(value))}" for key, value in becomes)
    if answer.status == "mapped":
        result += f" ({answer.note})" if answer.note else ""
    else:
        words = f"{_IN_WORDS[answer.status]}: {answer.note}"
        result = f"{words}; it becomes {result}" if result else words
    return f"{answer.name} -> {result}"


def _answer(conversion: Conversion, answer: Answer) -> Mapping[str, Any]:
    return {
        "key": answer.key,
        "value": answer.value,
        "line": answer.place.line,
        "column": answer.place.column,
        "status": answer.status,
        "becomes": conversion.becomes(answer),
        "note": answer.note or None,
    }
