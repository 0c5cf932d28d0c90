"""The `convo` command: sub-commands, version, and the exit code and message of every error.

Neither this module nor those of the commands import torch, transformers, rich or convo's lower
layers at module level. A command imports what it needs after it has checked its arguments, so that
help and errors appear at once.
"""

from __future__ import annotations

import errno
import functools
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from convo_cli import __version__
from convo_cli.cli.arguments import in_place
from convo_cli.cli.commands import (
    chat,
    evaluate,
    export,
    import_data,
    init_config,
    report,
    resume,
    serve,
    train,
    validate_data,
)
from convo_cli.cli.help_page import Command, Group, paragraphs
from convo_cli.cli.streams import finished, stdout_errors
from convo_cli.errors import (
    ConvoError,
    OutOfMemoryError,
    UsageError,
    first_line,
    is_out_of_memory,
    refused_by_system,
)
from convo_cli.world import seat_in

_UNREACHABLE = (errno.EACCES, errno.EPERM, errno.ELOOP)
"""Errors of the operating system for an unreachable path: a user's mistake, not a bug."""

app = typer.Typer(
    name="convo",
    cls=Group,
    help="Train multi-turn conversation models from JSONL files of dialogues, and talk to the "
    "result.",
    add_completion=True,
    suggest_commands=False,
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
    """Add a command; Ctrl-C and SIGTERM end it with a message even if it does not handle them."""
    placed = in_place(command)

    @functools.wraps(command)
    def stoppable(*args: Any, **options: Any) -> None:
        from convo_cli.signals import listening

        with listening() as stop, stop.interrupting("stopped"):
            placed(*args, **options)

    app.command(name, cls=Command, help=paragraphs(command.__doc__))(stoppable)


_add("import", import_data.import_data)
_add("init-config", init_config.init_config)
_add("validate-data", validate_data.validate_data)
_add("train", train.train)
_add("resume", resume.resume)
_add("evaluate", evaluate.evaluate)
_add("report", report.report)
_add("export", export.export)
_add("chat", chat.chat)
_add("serve", serve.serve)


def main() -> None:
    """Run the command line; the entry point of the `convo` executable."""
    from convo_cli.cli.console import show_error
    from convo_cli.training.distributed.rank_process import is_launched

    # transformers logs for developers; convo itself reports everything that a user has to know.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    # With `kernels` installed transformers would fetch code from the hub.
    os.environ.setdefault("USE_HUB_KERNELS", "0")
    # torch logs each lost connection with the stack of its C++ code; convo reports what was lost.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
    with stdout_errors():
        try:
            code = _run(sys.argv[1:])
        except ConvoError as error:
            code = error.exit_code
            seat = seat_in()
            # The first process of this machine reports the same; `launch` keeps the report of each.
            if seat is not None and seat.local_rank > 0 and not is_launched():
                sys.exit(code)
            with finished("the --json object of this error is lost"):
                command = _command_in(sys.argv)
                show_error(error, command=command, as_json="--json" in sys.argv)
    sys.exit(code)


def _command_in(words: list[str]) -> str | None:
    """Return the command that was given; None if it does not exist."""
    names = [info.name for info in app.registered_commands]
    return next((word for word in words[1:] if word in names), None)


def _run(arguments: list[str]) -> int:
    try:
        code = app(arguments or ["--help"], prog_name="convo", standalone_mode=False)
    except typer.TyperException as error:
        from convo_cli.cli.suggestions import refusal

        raise refusal(error, arguments) from None
    except ConvoError:
        raise
    except Exception as error:
        if refused := refused_by_system(error):
            raise refused from error
        if (
            isinstance(error, OSError)
            and error.errno in _UNREACHABLE
            and error.filename is not None
        ):
            raise UsageError(
                f"{error.filename}: {error.strerror}",
                hint="ask for access (`ls -ld` shows who has it), or use another path",
            ) from error
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(
            f"not enough memory ({first_line(error)})",
            hint="use a smaller model, training.micro_batch_size: 1, a lower dialogue.max_length, "
            "or training.gradient_checkpointing: true; everything saved so far is intact",
        ) from error
    if not arguments:
        return UsageError.exit_code
    return code if isinstance(code, int) else 0
