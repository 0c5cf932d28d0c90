"""Choice of a reporter: the live view on a terminal, plain lines elsewhere, or warnings only."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from convo_cli.cli.console import stderr_console
from convo_cli.cli.views.progress.advice import Adviser
from convo_cli.cli.views.progress.event_lines import show, show_notice
from convo_cli.cli.views.progress.live import LiveProgress
from convo_cli.cli.views.progress.meter import Clock
from convo_cli.cli.views.progress.plain import PlainProgress
from convo_cli.events import Emit, Event, Notice, ignore
from convo_cli.signals import answering

if TYPE_CHECKING:
    from rich.console import Console

_LARGE_BYTES = 8 * 2**20
"""Files with a smaller total size are read too fast for a progress bar."""


@contextmanager
def make_progress(
    console: Console,
    *,
    is_quiet: bool,
    log_every: int = 1,
    show_samples: int = 0,
    clock: Clock = time.monotonic,
) -> Iterator[Emit]:
    """Yield the reporter for a console on stderr.

    ``log_every`` is the number of steps between two plain lines, ``show_samples`` the number of
    replies shown for an evaluation.
    """
    if is_quiet:
        yield partial(_show_warning, console)
    elif _is_redrawable(console):
        live = LiveProgress(console, show_samples=show_samples, clock=clock)
        with live, answering(partial(show, console)):
            yield partial(_show_with_advice, live, Adviser(clock))
    else:
        plain = PlainProgress(console, log_every=log_every, show_samples=show_samples, clock=clock)
        yield partial(_show_with_advice, plain, Adviser(clock))


@contextmanager
def make_file_progress(paths: Sequence[str], *, is_quiet: bool) -> Iterator[Emit]:
    """Yield the reporter of a command that reads data files; small files need none."""
    num_bytes = sum(Path(path).stat().st_size for path in paths if Path(path).is_file())
    if is_quiet or num_bytes < _LARGE_BYTES:
        yield ignore
    else:
        with make_progress(stderr_console(), is_quiet=False) as emit:
            yield emit


def _is_redrawable(console: Console) -> bool:
    """Return whether the console can redraw lines: a UTF-8 terminal that is not dumb, outside CI.

    NO_COLOR removes only the colours. FORCE_COLOR does not turn a pipe into a terminal.
    """
    return (
        console.file.isatty()
        and console.is_interactive
        and console.encoding.startswith("utf")
        and not os.environ.get("CI")
    )


def _show_with_advice(show: Emit, adviser: Adviser, event: Event) -> None:
    show(event)
    if (notice := adviser(event)) is not None:
        show(notice)


def _show_warning(console: Console, event: Event) -> None:
    if isinstance(event, Notice) and event.is_warning:
        show_notice(console, event)
