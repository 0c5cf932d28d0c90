"""The `convo serve` command."""

from __future__ import annotations

import importlib
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convo_cli.cli.options import (
    BaseOption,
    DeviceOption,
    JsonOption,
    LoadOption,
    QuietOption,
    within,
)
from convo_cli.errors import StoppedError, UsageError, first_line

if TYPE_CHECKING:
    from convo_cli.runs.selection import Which
    from convo_cli.serve.served_models import ServedModel
    from convo_cli.serve.wire.access_log import WriteLine


def serve(
    models: Annotated[
        list[str],
        typer.Argument(help="Exports, run directories, checkpoints, or hub ids."),
    ],
    load: LoadOption = None,
    base: BaseOption = None,
    host: Annotated[
        str,
        typer.Option(metavar="HOST", help="Address to listen on; any but loopback needs a key."),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(metavar="N", callback=within(0, 65535), help="Port; 0: any free port."),
    ] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="Key that requests must send. Other users of this machine see it in `ps`: prefer "
            "CONVO_API_KEY or --api-key-file.",
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File that contains only the key.")
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Another host name of this server, for the Host header. Repeatable.",
        ),
    ] = None,
    max_rows: Annotated[
        int,
        typer.Option(
            metavar="N",
            callback=within(1, 256),
            help="Maximum number of replies computed at a time.",
        ),
    ] = 16,
    max_waiting: Annotated[
        int,
        typer.Option(
            metavar="N",
            callback=within(0, 10_000),
            help="Maximum number of waiting requests; others are refused (429).",
        ),
    ] = 64,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    is_quiet: QuietOption = False,
) -> None:
    """Serve models over HTTP: an OpenAI-compatible API and a chat page.

    Example: convo serve exports/convo
    """
    from convo_cli.cli.arguments import require_device
    from convo_cli.cli.console import announce, print_json, printable
    from convo_cli.cli.given_paths import require_model
    from convo_cli.cli.streams import discard_output
    from convo_cli.serve.api_keys import require_long, take_api_key
    from convo_cli.serve.wire.guards import is_host_name
    from convo_cli.serve.wire.log_writer import LogWriter
    from convo_cli.serve.wire.sockets import addresses_of, are_loopback, listen

    require_device(device)
    _require_packages()
    host = host.removeprefix("[").removesuffix("]")
    key = take_api_key(api_key, api_key_file)
    addresses = addresses_of(host)
    if not are_loopback(addresses):
        require_long(key, host)
    allowed = [_host_name(name) for name in allow_host or ()]
    if is_host_name(host):
        allowed.append(host)
    for model in models:
        require_model(model, load)
    with closing(listen(host, addresses, port)) as listening:
        for model in models:
            announce(f"loading {model} (this takes a few seconds)", is_quiet=is_quiet)

        log = LogWriter()

        def write_line(line: str) -> None:
            log.write_line(printable(line))

        served = _load(
            models, load, base, device, max_rows, max_waiting, write_line, is_quiet=is_quiet
        )
        from convo_cli.serve.api import Api
        from convo_cli.serve.running import DRAIN_SECONDS, Server
        from convo_cli.signals import answering
        from convo_cli.signals import listening as listening_to_signals

        api = Api(
            served,
            hosts=allowed,
            api_key=key,
            log_request=None if is_quiet else write_line,
            log_fault=write_line,
        )
        server = Server(api, [model.engine for model in served], listening)
        try:
            with answering(write_line), listening_to_signals() as stop:
                answer = f"finishing the running replies (at most {DRAIN_SECONDS:.0f} s)"
                with stop.finishing(answer):
                    server.start()
                    _tell_address(listening.url, models, served, is_quiet=is_quiet)
                    if as_json:
                        ids = [model.id for model in served]
                        print_json("serve", {"url": listening.url, "models": ids})
                        sys.stdout.flush()
                    server.wait(stop)
                raise StoppedError(stop.signal_number or 0, "the server has stopped")
        finally:
            if not log.close():
                discard_output(2)  # the outcome would wait for the reader of the log


def _tell_address(
    url: str, models: list[str], served: list[ServedModel], *, is_quiet: bool
) -> None:
    from convo_cli.cli.console import announce

    names = ", ".join(
        model.id if model.id == path else f"{model.id} ({path})"
        for model, path in zip(served, models, strict=True)
    )
    announce(f"serving {names}; Ctrl-C stops the server", is_quiet=is_quiet)
    announce(f"chat page: {url}", is_quiet=is_quiet)
    announce(f"API: {url}/v1", is_quiet=is_quiet)


def _require_packages() -> None:
    """Import what the server needs; UsageError with the command that installs it."""
    try:
        importlib.import_module("starlette.routing")
        importlib.import_module("uvicorn")
    except ImportError as error:
        raise UsageError(
            f"convo serve needs the packages starlette and uvicorn ({first_line(error)})",
            hint='pip install "convo-cli[serve]"',
        ) from None


def _host_name(name: str) -> str:
    """Return a name of `--allow-host` in lower case; UsageError if it is not a host name."""
    from convo_cli.serve.wire.guards import is_host_name

    if not is_host_name(name):
        raise UsageError(
            f"--allow-host {name}: not a host name",
            hint="give a name or address without a port, such as --allow-host chat.example.org",
        )
    return name.lower()


def _load(
    models: list[str],
    load: Which | None,
    base: str | None,
    device: str,
    max_rows: int,
    max_waiting: int,
    write_line: WriteLine,
    *,
    is_quiet: bool,
) -> list[ServedModel]:
    """Load the models and start their engines."""
    from convo_cli.text.bounded.client import start_bounded_process

    start_bounded_process()

    from convo_cli.cli.console import stderr_console
    from convo_cli.cli.views.progress.reporter import make_progress
    from convo_cli.model.open import generation_defaults, open_generator
    from convo_cli.serve.engine import Engine
    from convo_cli.serve.served_models import ServedModel, model_ids
    from convo_cli.serve.wire.refusals import describe_fault

    served = []
    with make_progress(stderr_console(), is_quiet=is_quiet) as emit:
        for model, name in zip(models, model_ids(models), strict=True):
            generator = open_generator(model, device=device, emit=emit, which=load, base=base)
            engine = Engine(
                generator,
                max_rows=max_rows,
                max_waiting=max_waiting,
                on_fault=lambda fault: write_line(describe_fault(fault)),
            )
            served.append(ServedModel(name, generator, engine, generation_defaults(generator)))
    return served
