"""Runs `convo` for tests, in this process or as the real executable.

In this process, a run saves three seconds of imports.
"""

from __future__ import annotations

import functools
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import typer.main

from convo_cli.__main__ import run

EXECUTABLE = Path(sys.executable).with_name("convo")
COLUMNS = "80"

_command_line = functools.cache(typer.main.get_command)
"""Typer builds all commands for each call, which costs 0.06 s."""


class Result(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The object on stdout."""
        return json.loads(self.out)


def run_here(folder: Path, *arguments: object, stdin: bytes = b"") -> Result:
    """Run a command in this process, in a folder, on 80 columns; any exception is raised."""
    out, err = _Kept(), _Kept()
    code = 0
    with (
        _replaced(folder, [str(argument) for argument in arguments], stdin, out, err),
        mock.patch("typer.main.get_command", _command_line),
    ):
        try:
            run()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        sys.stdout.flush()
    return Result(code, out.getvalue().decode(), err.getvalue().decode())


class _Kept(io.BytesIO):
    """Bytes that outlive the text stream around them."""

    def close(self) -> None:
        pass


@contextmanager
def _replaced(
    folder: Path, arguments: list[str], stdin: bytes, out: io.BytesIO, err: io.BytesIO
) -> Iterator[None]:
    before = sys.argv, sys.stdin, sys.stdout, sys.stderr, Path.cwd(), os.environ.get("COLUMNS")
    sys.argv = ["convo", *arguments]
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
    sys.stdout = io.TextIOWrapper(out, encoding="utf-8")
    sys.stderr = io.TextIOWrapper(err, encoding="utf-8", write_through=True)
    os.chdir(folder)
    os.environ["COLUMNS"] = COLUMNS
    try:
        yield
    finally:
        sys.argv, sys.stdin, sys.stdout, sys.stderr, cwd, columns = before
        os.chdir(cwd)
        os.environ.pop("COLUMNS")
        if columns is not None:
            os.environ["COLUMNS"] = columns


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of a real process: no colour, 80 columns, no terminal or CI."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if key not in ("CI", "FORCE_COLOR", "PYTHONWARNINGS")
    }
    return {**kept, "COLUMNS": COLUMNS, "NO_COLOR": "1", **changes}


def start(
    folder: Path, *arguments: object, env: Mapping[str, str] | None = None, **options: Any
) -> subprocess.Popen[bytes]:
    """Start the real executable with pipes for stdin, stdout and stderr, unless options differ."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(
        [EXECUTABLE, *map(str, arguments)],
        cwd=folder,
        env=env or environment(),
        **{**pipes, **options},
    )


def run_process(
    folder: Path,
    *arguments: object,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    timeout: float = 120,
) -> Result:
    """Run the real executable to its end."""
    process = start(folder, *arguments, env=env)
    try:
        out, err = process.communicate(stdin, timeout=timeout)
    finally:
        process.kill()
    return Result(process.returncode, out.decode(), err.decode())


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of change of every path in a folder; equal if nothing was written."""
    return {
        path.relative_to(folder).as_posix(): (
            (status := path.lstat()).st_size if path.is_file() else 0,
            status.st_mtime_ns if path.is_file() else 0,
        )
        for path in sorted(folder.rglob("*"))
    }


TINY = """\
name: tiny
output_dir: runs
data:
  train: train.jsonl
  validation: valid.jsonl
tokenizer: {vocab_size: 700}
model:
  scratch: {layers: 2, width: 32, heads: 2, context: 128}
dialogue: {max_length: 128}
training: {max_steps: 6, batch_size: 4, warmup_steps: 2, learning_rate: 1e-3}
evaluation: {every_steps: 3, reply_dialogues: 2}
generation: {max_new_tokens: 8}
logging: {every_steps: 1, tensorboard: false, plots: false}
"""
"""A run of a second on the sample dialogues that `make_workplace` puts beside it.

Plots, the page and the events of TensorBoard would double its cost; tests of them set `PICTURES`.
"""


def make_workplace(folder: Path) -> Path:
    """Write the tiny config and its sample dialogues for training and validation into a folder."""
    samples = Path(__file__).resolve().parent.parent / "sample_data"
    (folder / "config.yaml").write_text(TINY, encoding="utf-8")
    shutil.copyfile(samples / "valid.jsonl", folder / "train.jsonl")
    shutil.copyfile(samples / "test.jsonl", folder / "valid.jsonl")
    return folder


def settings(*pairs: str) -> list[str]:
    """Return KEY=VALUE pairs as arguments of `--set`."""
    return [word for pair in pairs for word in ("--set", pair)]


PICTURES = settings("logging.tensorboard=true", "logging.plots=true")
