"""`convo init-config`: write a config that trains as it is, with every key explained."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from convo_cli.cli.options import JsonOption, QuietOption
from convo_cli.errors import DiskError, UsageError


def init_config(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write here instead of to stdout.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE where it exists.")] = False,
    preset: Annotated[str, typer.Option(metavar="NAME", help="What to start from; see --list-presets.")] = "scratch",
    train: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Train on this JSONL file. Repeatable.")
    ] = None,
    validation: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Evaluate on this JSONL file. Repeatable.")
    ] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Write the JSON Schema of a config, for editors.")] = False,
    list_presets: Annotated[bool, typer.Option("--list-presets", help="List the presets.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write a commented config.yaml that trains as it is.

    Example: convo init-config --preset gpt2 --train my.jsonl -o config.yaml
    """
    if schema and list_presets:
        raise UsageError("--schema and --list-presets: only one at a time")
    if (schema or list_presets) and (preset != "scratch" or train or validation):
        raise UsageError("--schema and --list-presets take no --preset, --train or --validation")
    if force and output is None:
        raise UsageError("--force needs a file to replace", hint="add -o FILE")
    if validation and not train:
        raise UsageError("--validation needs --train: both files of the preset are replaced", hint="add --train FILE")

    from convo_cli.config.presets import PRESETS, find_preset
    from convo_cli.config.template import commented_yaml, json_schema

    if list_presets:
        descriptions = [{"name": preset.name, "description": preset.description} for preset in PRESETS.values()]
        result: dict[str, object] = {"presets": descriptions}
        text = "".join(f"{item['name']:15} {item['description']}\n" for item in descriptions)
    elif schema:
        result = {"schema": json_schema()}
        text = json.dumps(json_schema(), indent=2) + "\n"
    else:
        chosen = find_preset(preset)
        if train:
            chosen = chosen.with_data(train, validation or ())
        text = commented_yaml(chosen)
        result = {"preset": chosen.name, "config": chosen.config().model_dump(mode="json"), "yaml": text}

    if output is not None:
        _write(output, text, force)
        if not quiet:
            typer.echo(f"Wrote {output}", err=True)
    if as_json:
        from convo_cli.cli.console import print_json

        print_json("init-config", {**result, "path": None if output is None else str(output)})
    elif output is None:
        # Bytes, so that the encoding is UTF-8 and a line ends in LF on every system.
        sys.stdout.buffer.write(text.encode("utf-8"))
        sys.stdout.flush()
