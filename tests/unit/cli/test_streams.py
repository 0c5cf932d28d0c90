"""stderr outlives its reader, closed streams are replaced, and unencodable characters become ?."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from convo_cli.cli.streams import LastingStream
from tests.commands import environment

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX pipes")


def run_python(program: str, redirections: str = "", **changes: str) -> tuple[int, str, str]:
    """Run a program in a process whose standard streams a shell redirects and may close."""
    ran = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirections}', "sh", sys.executable, "-c", program],
        env=environment(**changes),
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.returncode, ran.stdout, ran.stderr


def test_what_is_written_reaches_the_wrapped_stream_and_all_else_is_its_own() -> None:
    kept = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    stream = LastingStream(kept)
    assert stream.write("é\n") == 2
    stream.flush()
    assert kept.buffer.getvalue() == b"\xe9\n"
    assert (stream.encoding, stream.isatty()) == ("latin-1", False)


@posix
def test_output_to_a_pipe_without_a_reader_is_discarded_from_then_on() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", buffering=1) as pipe:
        with pytest.raises(BrokenPipeError):
            os.write(writing, b"x")
        stream = LastingStream(pipe)
        assert stream.write("nobody reads this\n") == 18
        stream.flush()
        assert os.write(writing, b"nor this") == 8


@posix
def test_what_was_held_back_is_discarded_when_the_reader_is_gone() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as pipe:
        stream = LastingStream(pipe)
        stream.write("held back")
        os.close(reading)
        stream.flush()
        assert os.write(writing, b"discarded") == 9


@posix
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_file_that_is_opened_later_does_not_take_the_number_of_a_closed_stream(
    stream: str, tmp_path: Path
) -> None:
    program = (
        "import sys; from convo_cli.cli.streams import prepare_streams; prepare_streams()\n"
        f"file = open({str(tmp_path / 'file')!r}, 'w'); print('stray', file=sys.{stream}, "
        "flush=True)\n"
        "import os; os.write({'stdout': 1, 'stderr': 2}[%r], b'stray')" % stream
    )
    assert run_python(program, {"stdout": ">&-", "stderr": "2>&-"}[stream]) == (0, "", "")
    assert (tmp_path / "file").read_text() == ""


@posix
def test_a_character_that_the_terminal_lacks_is_shown_as_a_question_mark() -> None:
    program = (
        "import sys; from convo_cli.cli.streams import prepare_streams; prepare_streams()\n"
        "print('안\\udcff', file=sys.stdout); print('é\\udcff', file=sys.stderr)"
    )
    assert run_python(program, PYTHONIOENCODING="ascii") == (0, "??\n", "??\n")
