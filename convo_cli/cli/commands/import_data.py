"""The `convo import` command."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from convo_cli.cli.options import JsonOption, QuietOption
from convo_cli.errors import UsageError, typeable, typeable_option

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?) ?([smhdw])")


def import_data(
    source: Annotated[Path, typer.Argument(help="The export: a file, a .zip archive or a folder.")],
    out: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="OUT", help="The JSONL file to write.")
    ] = None,
    assistants: Annotated[
        list[str] | None,
        typer.Option(
            "--assistant",
            metavar="NAME",
            help="Person whose messages the model learns to write. Repeatable.",
        ),
    ] = None,
    format: Annotated[  # noqa: A002  (the option's name)
        str | None,
        typer.Option(
            "--format", metavar="NAME", help="Format of the source, if convo does not recognise it."
        ),
    ] = None,
    pause: Annotated[
        str,
        typer.Option(
            "--pause", metavar="TIME", help="Silence that ends a dialogue, such as 30m, 6h or 2d."
        ),
    ] = "6h",
    keep_names: Annotated[
        bool,
        typer.Option(
            "--keep-names", help='Begin each message of a user with its sender: "Ada: …".'
        ),
    ] = False,
    columns: Annotated[
        str | None,
        typer.Option(
            "--columns",
            metavar="NAME=COLUMN,…",
            help="Columns of a table under other names: question=Frage,answer=Antwort.",
        ),
    ] = None,
    only: Annotated[
        str,
        typer.Option(
            "--only",
            metavar="NAME",
            help="Read only the files of an archive or folder whose names contain or match NAME.",
        ),
    ] = "",
    is_forced: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    as_json: JsonOption = False,
    is_quiet: QuietOption = False,
) -> None:
    """Convert a chat export or another program's data to dialogues to train on.

    Names become roles, messages are joined into turns, and a silence ends a dialogue. Media and
    system lines are dropped and counted. Only you can read the output.

    Example: convo import chat.zip --assistant Ada -o data.jsonl
    """
    from convo_cli.cli.arguments import require_new_file
    from convo_cli.storage.similar import similar_path

    if str(source) == "-":
        raise UsageError(
            "convo import reads its source more than once, so it cannot be stdin",
            hint="write it to a file first: … > chat.txt",
        )
    if not source.exists():
        meant = similar_path(source)
        hint = f"did you mean {meant}?" if meant else "check the name"
        raise UsageError(f"{source}: no such file", hint=hint)
    if not (source.is_file() or source.is_dir()):
        raise UsageError(f"{source}: not a regular file", hint="give a file or a folder")
    if out is None:
        named = [typeable_option("--assistant", name) for name in assistants or ()]
        raise UsageError(
            "no output file",
            hint=" ".join(["convo import", typeable(source), *named, "-o data.jsonl"]),
        )
    require_new_file(out, [str(source)], is_forced=is_forced)
    seconds = _seconds(pause)
    renamed_columns = _columns(columns)

    from convo_cli.cli.console import print_json, stdout_console
    from convo_cli.cli.views.import_view import as_record, show_import
    from convo_cli.cli.views.progress.reporter import make_file_progress
    from convo_cli.data.decompress import packed
    from convo_cli.importers.importing import ImportOptions, import_source
    from convo_cli.storage.access import masked
    from convo_cli.storage.atomic import writing

    options = ImportOptions(
        tuple(assistants or ()), format, seconds, keep_names, renamed_columns, only
    )
    with (
        make_file_progress([str(source)], is_quiet=is_quiet) as emit,
        masked(0o600),
        writing(out) as file,
        packed(file, out.suffix.lower()) as write,
    ):
        report = import_source(source, write, options, emit)
    if as_json:
        print_json("import", as_record(report, out))
    else:
        show_import(stdout_console(), report, out, pause, is_quiet=is_quiet)


def _seconds(pause: str) -> float:
    """Return the seconds of a duration such as 6h."""
    match = _DURATION.fullmatch(pause.strip().lower())
    if match is None or float(match[1]) <= 0:
        raise UsageError(
            f"--pause {pause}: not a duration", hint="a number and s, m, h, d or w, such as 6h"
        )
    return float(match[1]) * _UNITS[match[2]]


def _columns(given: str | None) -> dict[str, str]:
    """Return the column of each NAME=COLUMN, with the name that convo reads."""
    pairs = [pair.partition("=") for pair in (given or "").split(",") if pair.strip()]
    columns = {column.strip(): name.strip() for name, _, column in pairs}
    if not all(columns) or not all(columns.values()) or len(columns) < len(pairs):
        raise UsageError(
            f"--columns {given}: not of the form NAME=COLUMN,…",
            hint="--columns question=Frage,answer=Antwort",
        )
    return columns
