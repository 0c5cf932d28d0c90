"""Worker processes read the blocks of large files, and change nothing in the report."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from convo_cli import cpus, worker_processes
from convo_cli.config.schema import DataConfig
from convo_cli.data.checks import validate, workers
from convo_cli.data.checks.block_reader import BlockReader
from convo_cli.data.checks.exact import LineRules
from convo_cli.data.checks.report import DataReport
from convo_cli.data.checks.statistics import BlockStatistics
from convo_cli.data.checks.validate import validate_files
from convo_cli.data.checks.workers import BlockWorkers
from convo_cli.events import Event

CONFIG = DataConfig(train=("unused",))
RULES = LineRules(CONFIG, "assistant")
BLOCK = b'["Hello", "Hi!"]\n["NULL", "\xed\x95\x9c"]\n[1]\n{"messages": []}\n' * 50


@pytest.fixture
def two() -> Iterator[BlockWorkers]:
    """Two workers that are ready."""
    made = BlockWorkers(RULES, 5, 2)
    try:
        wait_for(lambda: made.is_ready or made.has_failed)
        assert not made.has_failed
        yield made
    finally:
        made.close()


def wait_for(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition never became true"
        time.sleep(0.01)


class Counting(BlockWorkers):
    """Workers that are ready at once and count their answers, for tests."""

    made: list[Counting] = []  # noqa: RUF012

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.num_answers = 0
        self.made.append(self)
        wait_for(lambda: self.is_ready or self.has_failed)

    def read(self, data: bytes) -> Future[tuple[BlockStatistics] | None]:
        future = super().read(data)
        future.add_done_callback(self._count)
        return future

    def _count(self, future: Future[tuple[BlockStatistics] | None]) -> None:
        self.num_answers += not future.cancelled() and future.result() is not None


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> type[Counting]:
    """Every file is large, there are two CPUs, and blocks are small."""
    Counting.made = []
    monkeypatch.setattr(validate, "PARALLEL_BYTES", 0)
    monkeypatch.setattr(cpus, "num_cpus", lambda: 2)
    monkeypatch.setattr(workers, "BlockWorkers", Counting)
    monkeypatch.setattr("convo_cli.data.blocks.BUFFER_BYTES", 4000)
    return Counting


def write(path: Path, num_lines: int) -> str:
    """Write good lines of several forms, distant duplicates, faults, blank lines, unread keys."""
    with path.open("wb") as file:
        for number in range(num_lines):
            line: Any = [f"Hello {number % 700}", "Hi! 안녕", *["More"] * (number % 3)]
            if number % 5 == 0:
                line = {
                    f"key {number % 150}": "an ignored text that is long enough",
                    "messages": line,
                }
            if number % 41 == 0:
                line = ["NULL", ""] if number % 2 else {"turns": [1, "a"], "trian": True}
            file.write(json.dumps(line).encode() + (b"\n\n" if number % 97 == 0 else b"\n"))
    return str(path)


def report(paths: list[str], **options: Any) -> tuple[DataReport, list[Event]]:
    events: list[Event] = []
    return validate_files(paths, CONFIG, emit=events.append, **options), events


@pytest.mark.parametrize("max_problems", [0, 1, 5, 10_000])
def test_the_report_and_the_progress_are_those_of_one_process(
    tmp_path: Path, counting: type[Counting], monkeypatch: pytest.MonkeyPatch, max_problems: int
) -> None:
    monkeypatch.setattr(validate, "_PROGRESS_BYTES", 10_000)
    paths = [write(tmp_path / "a.jsonl", 4000), write(tmp_path / "b.jsonl", 2500)]
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    (tmp_path / "d.jsonl").write_bytes(b"")
    paths += [str(tmp_path / name) for name in ("c.jsonl.gz", "d.jsonl")]
    by_workers = report(paths, max_problems=max_problems)
    assert counting.made[0].num_answers > 20
    monkeypatch.setattr(cpus, "num_cpus", lambda: 1)
    alone = report(paths, max_problems=max_problems)
    assert len(counting.made) == 1
    assert by_workers == alone
    assert by_workers[0].leaks
    for ours, theirs in zip(by_workers[0].files, alone[0].files, strict=True):
        assert list(ours.unread_keys) == list(theirs.unread_keys)
        assert list(ours.shapes) == list(theirs.shapes)


def test_a_small_file_starts_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", None)
    monkeypatch.setattr(cpus, "num_cpus", lambda: 8)
    report([write(tmp_path / "a.jsonl", 100)] * 3)


def test_packed_data_counts_by_what_is_unpacked(
    tmp_path: Path, counting: type[Counting], monkeypatch: Any
) -> None:
    content = Path(write(tmp_path / "a.jsonl", 4000)).read_bytes()
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(content))
    monkeypatch.setattr(validate, "PARALLEL_BYTES", len(content) // 2)
    assert path.stat().st_size < len(content) // 2
    report([str(path)])
    assert counting.made[0].num_answers > 5


def test_a_long_line_is_read_here_and_its_memory_taken_once(
    tmp_path: Path, counting: type[Counting], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validate, "_MAX_SENT_BYTES", 10_000)
    sent: list[int] = []
    read = counting.read
    monkeypatch.setattr(
        counting, "read", lambda self, data: (sent.append(len(data)), read(self, data))[1]
    )
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        b'["Hello", "Hi!"]\n' * 2000 + json.dumps(["Hello", "x" * 10_001]).encode() + b"\n"
    )
    (file,) = report([str(path)])[0].files
    assert file.num_dialogues == 2001
    assert sent
    assert max(sent) <= 10_000


def test_a_worker_answers_what_a_reader_finds_here(two: BlockWorkers) -> None:
    for _ in range(3):  # by either
        answer = two.read(BLOCK).result()
        assert answer is not None
        (found,) = answer
        here = BlockReader(RULES, 5).read(BLOCK)
        assert (found.problems, found.fingerprints, found.skeletons) == (
            here.problems, here.fingerprints, here.skeletons,
        )  # fmt: skip


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
def test_the_blocks_of_a_killed_worker_are_read_here(
    tmp_path: Path, counting: type[Counting], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.jsonl", 3000)
    read = counting.read

    def read_and_kill(self: Counting, data: bytes) -> Any:
        if self.num_answers > 5:
            self._processes[0].kill()
        return read(self, data)

    monkeypatch.setattr(counting, "read", read_and_kill)
    found, _ = report([path])
    assert counting.made[0].has_failed
    monkeypatch.setattr(cpus, "num_cpus", lambda: 1)
    assert found == report([path])[0]


def test_an_error_in_a_worker_is_the_same_error_here(
    tmp_path: Path, counting: type[Counting], monkeypatch: Any
) -> None:
    path = write(tmp_path / "a.jsonl", 3000)
    monkeypatch.setattr(worker_processes, "_START", FAILING)
    expected = validate_alone(path, monkeypatch)
    monkeypatch.setattr(cpus, "num_cpus", lambda: 2)
    assert report([path])[0] == expected
    assert counting.made[0].has_failed
    monkeypatch.setattr(BlockReader, "read", fail)
    with pytest.raises(MemoryError, match="the same"):
        report([path])


FAILING = """
import sys; sys.path[:] = sys.argv[1:]
from convo_cli import worker_processes
from convo_cli.data.checks import workers
def fail(self, data): raise MemoryError
workers.BlockReader.read = fail
worker_processes.work()
"""


def fail(self: BlockReader, data: bytes) -> BlockStatistics:
    raise MemoryError("the same")


def validate_alone(path: str, monkeypatch: pytest.MonkeyPatch) -> DataReport:
    monkeypatch.setattr(cpus, "num_cpus", lambda: 1)
    return report([path])[0]


@pytest.mark.parametrize(
    "error", [OSError, RuntimeError], ids=["no more processes", "no more threads"]
)
def test_if_no_worker_can_be_started_this_process_reads_all(
    tmp_path: Path,
    counting: type[Counting],
    monkeypatch: pytest.MonkeyPatch,
    error: type[Exception],
) -> None:
    started = []

    def start() -> Any:
        if started:
            raise error("no more")
        started.append(real_start())
        return started[0]

    real_start = worker_processes._start
    monkeypatch.setattr(worker_processes, "_start", start)
    path = write(tmp_path / "a.jsonl", 1000)
    found, _ = report([path])
    assert counting.made[0].has_failed
    assert started[0].returncode is not None, "the first one was ended"
    assert found == validate_alone(path, monkeypatch)


@pytest.mark.parametrize("executable", [None, "", "no such file"])
def test_without_a_python_executable_this_process_reads_all(
    tmp_path: Path,
    counting: type[Counting],
    monkeypatch: pytest.MonkeyPatch,
    executable: str | None,
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    path = write(tmp_path / "a.jsonl", 1000)
    found, _ = report([path])
    assert counting.made[0].has_failed
    assert found == validate_alone(path, monkeypatch)


def test_no_worker_is_left_when_the_report_is_made(
    tmp_path: Path, counting: type[Counting]
) -> None:
    report([write(tmp_path / "a.jsonl", 1000)])
    assert [process.returncode is None for process in counting.made[0]._processes] == [False, False]


def test_a_worker_imports_neither_pydantic_nor_rich_nor_torch() -> None:
    """Otherwise each takes longer to start than a fast file of 32 MiB takes to read."""
    code = (
        "import sys, convo_cli.data.checks.workers; print(sorted({name.split('.')[0] for name "
        "in sys.modules}))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert "numpy" in found
    for name in ("'pydantic'", "'rich'", "'torch'", "'typer'", "'ftfy'"):
        assert name not in found


IN_A_SCRIPT = """
import sys
from convo_cli import cpus, worker_processes
from convo_cli.config.schema import DataConfig
from convo_cli.data.checks import validate
validate.PARALLEL_BYTES = 0
cpus.num_cpus = lambda: 2
# At the top level of the script.
print(len(validate.validate_files(sys.argv[1:], DataConfig(train=("a",))).files))
"""


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_the_process_that_started_them(tmp_path: Path, number: int) -> None:
    os.mkfifo(tmp_path / "pipe")
    command = [sys.executable, "-c", IN_A_SCRIPT, str(tmp_path / "pipe")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    with (tmp_path / "pipe").open("wb") as pipe:
        pipe.write(BLOCK * 1000)
        pipe.flush()
        wait_for(lambda: len(children(process.pid)) == 2)
        begun = children(process.pid)
        process.send_signal(number)
        assert process.wait(20) == -number
        wait_for(lambda: not any(map(is_alive, begun)), seconds=20)


def children(pid: int) -> list[int]:
    found = subprocess.run(
        ["ps", "-A", "-o", "ppid=,pid="], capture_output=True, text=True, check=True
    ).stdout
    pairs = [tuple(map(int, line.split())) for line in found.splitlines()]
    return [child for parent, child in pairs if parent == pid]


def is_alive(pid: int) -> bool:
    found = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout
    return bool(found.strip()) and not found.startswith("Z")
