"""The `convo init-config` command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convo_cli.cli.options import JsonOption, QuietOption
from convo_cli.errors import ConfigError, DiskError, UsageError, typeable

if TYPE_CHECKING:
    from convo_cli.cli.views.config_view import Document


def init_config(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write here instead of to stdout."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE where it exists.")] = False,
    preset: Annotated[
        str, typer.Option(metavar="NAME", help="What to start from; see --list-presets.")
    ] = "scratch",
    train: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Train on this JSONL file. Repeatable.")
    ] = None,
    validation: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Evaluate on this JSONL file. Repeatable."),
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Write the JSON Schema of a config, for editors.")
    ] = False,
    list_presets: Annotated[bool, typer.Option("--list-presets", help="List the presets.")] = False,
    as_json: JsonOption = False,
    is_quiet: QuietOption = False,
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
        raise UsageError(
            "--validation needs --train: both files of the preset are replaced",
            hint="add --train FILE",
        )

    from convo_cli.cli.console import print_json, printable
    from convo_cli.cli.views.config_view import preset_list, schema_document
    from convo_cli.config.presets import PRESETS
    from convo_cli.config.reference import json_schema

    if list_presets:
        document = preset_list(PRESETS.values())
    elif schema:
        document = schema_document(json_schema())
    else:
        document = _from_preset(preset, train or (), validation or ())

    if output is not None:
        _write(output, document.text, may_replace=force)
        if not is_quiet:
            typer.echo(printable(f"Wrote {output}"), err=True)
    if as_json:
        print_json(
            "init-config",
            {**document.record, "path": None if output is None else printable(str(output))},
        )
    elif output is None:
        # Bytes, so that the encoding is UTF-8 and lines end in LF on every system.
        sys.stdout.buffer.write(document.text.encode("utf-8"))
        sys.stdout.flush()


def _from_preset(name: str, train: Sequence[str], validation: Sequence[str]) -> Document:
    """Return the config of a preset, with other data files if some are given."""
    from convo_cli.cli.views.config_view import config_document
    from convo_cli.config.presets import find_preset
    from convo_cli.config.reading.building import NOT_TEXT
    from convo_cli.config.reference import commented_yaml

    preset = find_preset(name)
    if train:
        if any(NOT_TEXT.search(file) for file in (*train, *validation)):
            raise UsageError("a config cannot hold a file name that is not UTF-8 text")
        preset = preset.with_data(train, validation)
    try:
        return config_document(
            name, preset.config().model_dump(mode="json"), commented_yaml(preset)
        )
    except ConfigError as error:
        raise UsageError(error.message, hint="add --validation FILE") from None


def _write(path: Path, text: str, *, may_replace: bool) -> None:
    """Write a new file, or replace a regular one; never through a link or into a device."""
    from convo_cli.storage.atomic import disk_errors, write_file
    from convo_cli.storage.files import special_kind_at

    try:
        with disk_errors(path):
            if (kind := special_kind_at(path)) is not None:
                raise UsageError(
                    f"{path}: not a regular file, but {kind}", hint="choose another name with -o"
                )
            if path.exists() and not may_replace:
                raise UsageError(
                    f"{path}: exists already", hint="choose another name with -o, or add --force"
                )
            if not path.parent.is_dir():
                raise UsageError(
                    f"{path}: there is no folder {path.parent}",
                    hint=f"mkdir -p {typeable(path.parent)}",
                )
        write_file(path, text)
    except DiskError as error:
        raise DiskError(error.message, hint="choose another place with -o") from error
