"""The `convo` command: sub-commands, version, and the one place where errors become messages and
exit codes.

Neither this module nor those of the commands import torch, transformers, rich or convo's lower
rooms at module level. A command imports what it needs after it has checked its arguments, so that
help and errors appear at once.
"""

from __future__ import annotations

import errno
import inspect
import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from convo_cli import __version__
from convo_cli.cli.arguments import in_place
from convo_cli.cli.commands import chat, evaluate, export, init_config, resume, train, validate_data
from convo_cli.cli.streams import finished, stdout_errors
from convo_cli.errors import (
    ConvoError,
    OutOfMemoryError,
    UsageError,
    is_out_of_memory,
    refused_by_system,
)

_UNREACHABLE = (errno.EACCES, errno.EPERM, errno.ELOOP)
"""Errors of the operating system for an unreachable path: a user's mistake, not a bug."""

app = typer.Typer(
    name="convo",
    help="Train multi-turn conversation models from JSONL files of dialogues, and talk to the "
    "result.",
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: convo init-config > config.yaml && convo train config.yaml",
)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"convo {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", is_eager=True, callback=_show_version
        ),
    ] = False,
) -> None:
    pass


def _add(name: str, command: Callable[..., None]) -> None:
    """Add a command; each paragraph of its docstring becomes one line of help, without its line
    breaks.
    """
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    app.command(name, help="\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs))(
        in_place(command)
    )


_add("init-config", init_config.init_config)
_add("validate-data", validate_data.validate_data)
_add("train", train.train)
_add("resume", resume.resume)
_add("evaluate", evaluate.evaluate)
_add("export", export.export)
_add("chat", chat.chat)


def main() -> None:
    """Run the command line; the entry point of the `convo` executable."""
    from convo_cli.cli.console import show_error

    # transformers logs for developers; convo itself reports everything that a user has to know.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault(
        "USE_HUB_KERNELS", "0"
    )  # with `kernels` installed transformers fetches code from the hub
    with stdout_errors():
        try:
            code = _run(sys.argv[1:])
        except ConvoError as error:
            code = error.exit_code
            with finished("the --json object of this error is lost"):
                show_error(error, as_json="--json" in sys.argv)
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    try:
        code = app(arguments or ["--help"], prog_name="convo", standalone_mode=False)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "convo"
        message = error.format_message().replace(
            "Value error, ", ""
        )  # pydantic's prefix in typer 0.29
        raise UsageError(message, hint=f"{command} --help") from None
    except ConvoError:
        raise
    except Exception as error:
        if refusal := refused_by_system(error):
            raise refusal from error
        if (
            isinstance(error, OSError)
            and error.errno in _UNREACHABLE
            and error.filename is not None
        ):
            raise UsageError(
                f"{error.filename}: {error.strerror}",
                hint="ask for access (`ls -ld` shows who has it), or name another path",
            ) from error
        if not is_out_of_memory(error):
            raise
        first_line = (str(error).splitlines() or [""])[0]
        raise OutOfMemoryError(
            f"there is not enough memory for this ({first_line or type(error).__name__})",
            hint="a smaller model, training.micro_batch_size: 1, training.gradient_checkpointing: "
            "true, a shorter "
            "dialogue.max_length, or more memory; what was saved is intact",
        ) from error
    if not arguments:
        return UsageError.exit_code
    return code if isinstance(code, int) else 0
