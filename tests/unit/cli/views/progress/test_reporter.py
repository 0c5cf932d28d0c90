"""The choice of a reporter: live, plain or quiet."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from convo_cli.cli.console import printable
from convo_cli.cli.views.progress.reporter import make_file_progress, make_progress
from convo_cli.events import Notice, Progress, RunFinished
from tests.run_events import STARTED, FakeTerminal, evaluation, sample, step

HIDE_CURSOR = "\x1b[?25l"
COLOUR = "\x1b[33m"


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CI", "NO_COLOR", "FORCE_COLOR", "TTY_INTERACTIVE", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


def shown(file: io.StringIO) -> str:
    """What a warning looks like on a console with this file."""
    console = Console(file=file)
    with make_progress(console, is_quiet=False, log_every=10, show_samples=3) as emit:
        emit(Notice("beware", is_warning=True))
    return file.getvalue()


@pytest.mark.parametrize(
    ("environment", "is_live", "is_coloured"),
    [
        ({}, True, True),
        ({"NO_COLOR": "1"}, True, False),
        ({"TERM": "dumb"}, False, False),
        ({"CI": "true"}, False, True),
    ],
)
def test_a_terminal_gets_the_live_view_unless_it_is_dumb_or_in_ci(
    environment: dict[str, str],
    is_live: bool,
    is_coloured: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    written = shown(FakeTerminal())
    assert (HIDE_CURSOR in written, COLOUR in written) == (is_live, is_coloured)


def test_a_pipe_gets_plain_lines_even_where_colours_are_forced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert HIDE_CURSOR not in shown(io.StringIO())


def test_a_terminal_without_unicode_gets_plain_lines() -> None:
    terminal = FakeTerminal()
    terminal.encoding = "ascii"
    assert HIDE_CURSOR not in shown(terminal)


@pytest.mark.parametrize("width", [40, 80])
def test_a_notice_on_a_terminal_breaks_between_words_but_never_in_a_command(width: int) -> None:
    terminal, command = FakeTerminal(), "`convo resume runs/x --set checkpoints.every_steps=1000`"
    console = Console(file=terminal, width=width, force_terminal=True, color_system=None)
    with make_progress(console, is_quiet=False) as emit:
        emit(Notice(f"{'many words ' * 9}and {command} at the end"))
    lines = printable(terminal.getvalue()).split("\n")
    assert any(command in line for line in lines)
    assert all(len(line) <= width or line.strip() == command for line in lines)
    assert " ".join(lines).split() == f"{'many words ' * 9}and {command} at the end".split()


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
    ("num_bytes", "is_terminal", "is_quiet", "is_shown"),
    [
        (2**23, True, False, True),
        (2**23, True, True, False),
        (2**23, False, False, True),
        (2**23, False, True, False),
        (2**23 - 1, True, False, False),
    ],
)
def test_reading_large_files_shows_progress(
    num_bytes: int,
    is_terminal: bool,
    is_quiet: bool,
    is_shown: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stderr = FakeTerminal() if is_terminal else io.StringIO()
    monkeypatch.setattr("sys.stderr", stderr)
    file = tmp_path / "large.jsonl"
    with file.open("wb") as large:
        large.truncate(num_bytes)
    with make_file_progress([str(file), "-"], is_quiet=is_quiet) as emit:
        emit(Progress("reading", 1, 3, "bytes"))
        emit(Notice("beware", is_warning=True))
    assert ("beware" in stderr.getvalue()) is is_shown


def test_importing_the_module_imports_no_rich() -> None:
    program = "import sys, {}; sys.exit(bool({{'rich', 'torch', 'numpy'}} & set(sys.modules)))"
    for module, code in (("convo_cli.cli.views.progress.reporter", 0), ("rich", 1)):
        ran = subprocess.run([sys.executable, "-c", program.format(module)], check=False)
        assert ran.returncode == code
