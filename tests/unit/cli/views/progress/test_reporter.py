"""Which reporter a console gets."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from convo_cli.cli.views.progress.live import LiveProgress
from convo_cli.cli.views.progress.plain import PlainProgress
from convo_cli.cli.views.progress.reporter import make_file_progress, make_progress
from convo_cli.events import Notice, Progress, RunFinished
from tests.run_events import STARTED, FakeTerminal, evaluation, sample, step


@pytest.mark.parametrize(
    ("environment", "reporter"),
    [
        ({"TERM": "xterm"}, LiveProgress),
        ({"TERM": "dumb"}, PlainProgress),
        ({"TERM": "xterm", "NO_COLOR": "1"}, PlainProgress),
        ({"TERM": "xterm", "CI": "true"}, PlainProgress),
    ],
)
def test_a_terminal_gets_the_live_view_unless_it_asks_for_plain_lines(
    environment: dict[str, str], reporter: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CI", "NO_COLOR", "FORCE_COLOR", "TTY_INTERACTIVE", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with make_progress(
        Console(file=FakeTerminal()), is_quiet=False, log_every=10, show_samples=3
    ) as emit:
        assert type(emit) is reporter


def test_a_pipe_gets_plain_lines_even_where_colours_are_forced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CI", raising=False)
    console = Console(file=io.StringIO(), force_terminal=True, force_interactive=True)
    with make_progress(console, is_quiet=False, log_every=10, show_samples=3) as emit:
        assert type(emit) is PlainProgress


def test_a_terminal_without_unicode_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    terminal = FakeTerminal()
    terminal.encoding = "ascii"
    with make_progress(
        Console(file=terminal), is_quiet=False, log_every=10, show_samples=3
    ) as emit:
        assert type(emit) is PlainProgress


def test_quiet_shows_warnings_only() -> None:
    output = io.StringIO()
    with make_progress(Console(file=output), is_quiet=True, log_every=1, show_samples=3) as emit:
        for event in (
            STARTED,
            step(1),
            evaluation(1),
            Notice("chatter"),
            Notice("beware", is_warning=True),
        ):
            emit(event)
        emit(RunFinished(1, "done"))
    assert output.getvalue() == "warning: beware\n"


def test_without_further_settings_every_step_is_a_line_and_no_reply_is_shown() -> None:
    output = io.StringIO()
    with make_progress(Console(file=output), is_quiet=False) as emit:
        for event in (step(1), step(2), step(3), evaluation(3, (sample("a"),))):
            emit(event)
    assert [line.split("  ")[0] for line in output.getvalue().splitlines()] == [
        "step 1/300",
        "step 2/300",
        "step 3/300",
        "eval step 3",
    ]


@pytest.mark.parametrize(
    ("num_bytes", "is_terminal", "is_quiet", "has_bar"),
    [
        (2**23, True, False, True),
        (2**23, True, True, False),
        (2**23, False, False, False),
        (2**23 - 1, True, False, False),
    ],
)
def test_reading_large_files_draws_a_bar_on_a_terminal(
    num_bytes: int,
    is_terminal: bool,
    is_quiet: bool,
    has_bar: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("CI", "NO_COLOR", "FORCE_COLOR", "TTY_INTERACTIVE", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    stderr = FakeTerminal() if is_terminal else io.StringIO()
    monkeypatch.setattr("sys.stderr", stderr)
    file = tmp_path / "large.jsonl"
    with file.open("wb") as large:
        large.truncate(num_bytes)
    with make_file_progress([str(file), "-"], is_quiet=is_quiet) as emit:
        emit(Progress("reading", 1, 3, "bytes"))
        emit(Notice("beware", is_warning=True))
    assert ("beware" in stderr.getvalue()) is has_bar


def test_importing_the_module_imports_no_rich() -> None:
    program = "import sys, {}; sys.exit(bool({{'rich', 'torch', 'numpy'}} & set(sys.modules)))"
    for module, code in (("convo_cli.cli.views.progress.reporter", 0), ("rich", 1)):
        ran = subprocess.run([sys.executable, "-c", program.format(module)], check=False)
        assert ran.returncode == code
