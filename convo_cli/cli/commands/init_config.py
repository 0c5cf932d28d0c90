"""The `convo init-config` command."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convo_cli.cli.options import JsonOption, QuietOption, complete_preset
from convo_cli.errors import ConfigError, UsageError, typeable

if TYPE_CHECKING:
    from convo_cli.cli.views.config_view import Document
    from convo_cli.config.presets import Preset
    from convo_cli.data.sizing.choices import Sizing


def init_config(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write here instead of to stdout."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The preset to start from (scratch without it); see --list-presets.",
            autocompletion=complete_preset,
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="Convert this config of convmodel or multi-turn-chatbot-GPT2.",
        ),
    ] = None,
    train: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Train on this JSONL file. Repeatable.")
    ] = None,
    validation: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Evaluate on this JSONL file. Repeatable."),
    ] = None,
    test: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Score the finished run on this JSONL file. Repeatable."),
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Write the JSON Schema of a config, for editors.")
    ] = False,
    list_presets: Annotated[bool, typer.Option("--list-presets", help="List the presets.")] = False,
    as_json: JsonOption = False,
    is_quiet: QuietOption = False,
) -> None:
    """Write a commented config.yaml that trains as it is.

    With --train, vocabulary, batches, steps and evaluations are chosen for the size of the data.
    With -o, the JSON Schema for editors is written beside the config.

    With --from, each key of the other config is mapped, answered or listed as not supported, on
    stderr and in comments at the top of the YAML. If a key needs a decision, for example because
    two keys disagree, nothing is written. --train, --validation and --test replace its data files.

    Example: convo init-config --preset gpt2 --train my.jsonl -o config.yaml
    """
    if schema and list_presets:
        raise UsageError("--schema and --list-presets cannot be combined")
    files = {"train": train or [], "validation": validation or [], "test": test or []}
    if (schema or list_presets) and (preset or source or any(files.values())):
        raise UsageError(
            "--schema and --list-presets cannot be combined with --preset, --from, --train, "
            "--validation or --test"
        )
    if preset and source:
        raise UsageError("--preset and --from cannot be combined")
    if output == Path("-"):
        raise UsageError("-o -: a config goes to stdout without -o", hint="leave -o out")
    if source is not None and _is_same_file(source, output):
        raise UsageError(f"-o {output}: the file that --from reads", hint="choose another name")
    if force and output is None:
        raise UsageError("--force needs a file to replace", hint="add -o FILE")
    for name, given in files.items():
        if given and not train and source is None:
            raise UsageError(f"--{name} needs --train", hint="add --train FILE")

    from convo_cli.cli.config_files import (
        SAMPLES,
        copy_samples,
        is_own_schema,
        write_new,
        write_schema,
    )
    from convo_cli.cli.console import print_json, printable
    from convo_cli.cli.views.config_view import preset_list, schema_document
    from convo_cli.config.presets import PRESETS
    from convo_cli.config.reference import SCHEMA_FILE, json_schema

    if list_presets:
        document = preset_list(PRESETS.values())
    elif schema:
        document = schema_document(json_schema())
    else:
        for name, paths in files.items():
            if paths:
                _require_files(f"--{name}", paths)
        if source is not None:
            document = _from_other(source, files, is_quiet=is_quiet)
        else:
            document = _from_preset(preset or "scratch", files, is_quiet=is_quiet)
        if output is not None and output.name == SCHEMA_FILE:
            raise UsageError(
                f"{output}: reserved for the JSON Schema", hint="choose another name with -o"
            )

    notes: list[str] = []
    if output is not None:
        may_replace = force or (schema and is_own_schema(output))
        write_new(output, document.text, may_replace=may_replace)
        notes.append(f"Wrote {output}")
        if "yaml" in document.record:
            notes.append(write_schema(output.with_name(SCHEMA_FILE)))
    if output is not None or not (as_json or sys.stdout.isatty()):
        data = document.record.get("config", {}).get("data", {})
        if copy_samples(path for name in files for path in data.get(name, ())):
            notes.append(f"Created {SAMPLES}/ with the sample dialogues that this config trains on")
    if notes and not is_quiet:
        typer.echo(printable("\n".join(notes)), err=True)
    if as_json:
        print_json(
            "init-config",
            {**document.record, "path": None if output is None else printable(str(output))},
        )
    elif output is None:
        # Bytes, so that the encoding is UTF-8 and lines end in LF on every system.
        sys.stdout.buffer.write(document.text.encode("utf-8"))
        sys.stdout.flush()


def _is_same_file(source: Path, output: Path | None) -> bool:
    """Return whether both paths lead to one file; a file that is not there is none."""
    try:
        return output is not None and output.samefile(source)
    except (OSError, ValueError):
        return False


def _from_other(source: Path, files: Mapping[str, Sequence[str]], *, is_quiet: bool) -> Document:
    """Return the config of a forerunner as a config of convo, and show what became of its keys."""
    from convo_cli.cli.console import printable
    from convo_cli.cli.given_paths import require_other_config
    from convo_cli.cli.views.config_view import conversion_lines, converted_document
    from convo_cli.config.forerunners.config_conversion import convert

    require_other_config(source)
    given = {f"data.{name}": paths for name, paths in files.items() if paths}
    conversion = convert(source, given)
    lines = conversion_lines(conversion, is_quiet=is_quiet)
    lines += [
        f"notice: {path} does not exist here; data paths begin at the working directory"
        for path in conversion.config.data.files
        if not Path(path).exists() and not is_quiet
    ]
    if lines:
        typer.echo(printable("\n".join(lines)), err=True)
    return converted_document(conversion)


def _from_preset(name: str, files: Mapping[str, Sequence[str]], *, is_quiet: bool) -> Document:
    """Return the config of a preset, sized for the files of each data set if some are given."""
    from convo_cli.cli.console import printable
    from convo_cli.cli.views.config_view import config_document
    from convo_cli.config.presets import find_preset
    from convo_cli.config.reference import commented_yaml

    preset, sizing = find_preset(name), None
    if files["train"]:
        try:
            preset, sizing = _sized(preset.with_data(**files))
        except ConfigError as error:
            raise UsageError(error.message, hint="add --validation FILE") from None
    if sizing is not None and not is_quiet:
        typer.echo(printable(sizing.summary), err=True)
    return config_document(
        name, preset.config().model_dump(mode="json"), commented_yaml(preset), sizing
    )


def _require_files(option: str, files: Sequence[str]) -> None:
    """Raise UsageError for a data file that `train` could not read, or a config could not name."""
    from convo_cli.config.reading.building import NOT_TEXT
    from convo_cli.data.decompress import STDIN
    from convo_cli.data.file_lists import files_of
    from convo_cli.data.reader import check_source

    for file in files:
        if NOT_TEXT.search(file):
            raise UsageError("a config cannot hold a file name that is not UTF-8 text")
        if file == STDIN:
            raise UsageError(
                f"{option} -: training reads its data more than once",
                hint="write stdin to a file first: … > train.jsonl",
            )
        try:
            for path in files_of(file):
                check_source(path, is_read_again=True)
        except UsageError as error:
            raise UsageError(f"{option} {error.message}", hint=error.hint) from None


def _sized(preset: Preset) -> tuple[Preset, Sizing | None]:
    """Return the preset with settings for the size of its data, and these settings.

    They are None if no dialogue can be read. ConfigError if the preset needs validation data, and
    its data cannot be split.
    """
    from convo_cli.cli.console import printable
    from convo_cli.data.file_lists import files_of
    from convo_cli.data.sizing.choices import size_for
    from convo_cli.data.sizing.estimate import estimate_size

    config = preset.config()
    coverage = config.tokenizer.character_coverage
    train, validation, test = (
        estimate_size(list(chain(*map(files_of, paths))), config.data, coverage=coverage)
        for paths in (config.data.train, config.data.validation, config.data.test)
    )
    if train.num_dialogues == 0:
        names = " ".join(map(typeable, config.data.train))
        typer.echo(
            printable(
                f"warning: no dialogue could be read, so the config keeps the sizes of preset "
                f"{preset.name}\nhint: convo validate-data {names}"
            ),
            err=True,
        )
        return preset, None
    if train.num_held_back:
        train, validation = train.sides()
    elif config.data.validation_split is not None:
        preset = preset.unsplit()
        preset.config()
    sizing = size_for(preset, train, validation, test, names=config.data.train)
    return sizing.apply(preset), sizing
