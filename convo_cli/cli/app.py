"""The `convo` command: its sub-commands, its version, and the one place where errors become messages and exit codes.

Nothing here or in a command's module imports torch, transformers, rich or convo's inner rooms at module level; each
command imports what it needs once its arguments are checked, so that help and mistakes answer at once.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

from convo_cli import __version__
from convo_cli.cli import chat, evaluate, export, init_config, resume, train, validate_data
from convo_cli.errors import ConvoError

app = typer.Typer(
    name="convo",
    help="Train multi-turn conversation models from JSONL files of dialogues, and talk to the result.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: convo init-config > config.yaml && convo train config.yaml",
)


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(f"convo {__version__}")
        raise typer.Exit


app.command("init-config")(init_config.init_config)
app.command("validate-data")(validate_data.validate_data)
app.command("train")(train.train)
app.command("resume")(resume.resume)
app.command("evaluate")(evaluate.evaluate)
app.command("export")(export.export)
app.command("chat")(chat.chat)


def main() -> None:
    """Run the command line; the entry point of the `convo` executable."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character shows ? instead
    try:
        app()
    except ConvoError as error:
        from convo_cli.cli.console import show_error

        show_error(error, as_json="--json" in sys.argv)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our stdout went away (`convo … | head`); keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
