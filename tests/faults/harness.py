"""Runs with an injected fault, and their outcome, for the tests of this folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.logs.event_log import read_metrics
from convo_cli.storage.sealed import file_sha256
from tests.commands import TINY, environment, make_workplace

RUN = "runs/tiny"
STEPS = 4
CONFIG = (
    TINY.replace("max_steps: 6", f"max_steps: {STEPS}")
    .replace("every_steps: 3", "every_steps: 2")
    .replace("tensorboard: false, ", "")
    + "checkpoints: {every_steps: 1, keep: 2}\n"
)
"""Four steps, five checkpoints of which up to four are kept, two evaluations.

So every path of a save is taken.
"""

_VOLATILE = {"time", "seconds", "waiting_seconds", "run_dir"}


class Ended(NamedTuple):
    """The end of a command; the code is negative if a signal ended it."""

    code: int
    out: str
    err: str


class Operation(NamedTuple):
    """A line of the fault layer's log."""

    number: int
    kind: str
    path: str
    target: str
    size: int
    """Of the file, before the operation."""


class Outcome(NamedTuple):
    """What must be equal: hashes of weights and optimizer, and all logged values except times."""

    weights: str
    optimizer: str
    log: tuple[str, ...]


def outcome(run_dir: Path, step: int = STEPS) -> Outcome:
    """Return the outcome of a finished run."""
    folder = RunDirectory(run_dir).checkpoint(step)
    log = [
        json.dumps(
            {key: value for key, value in record.items() if key not in _VOLATILE}, sort_keys=True
        )
        for record in (
            *read_metrics(run_dir / "metrics.jsonl"),
            *read_metrics(run_dir / "samples.jsonl"),
        )
        if record["event"] in ("step", "evaluation", "sample")
    ]
    return Outcome(
        file_sha256(folder / "model.safetensors"),
        file_sha256(folder / "optimizer.safetensors"),
        tuple(log),
    )


def fault(
    folder: Path, action: str = "", at: int = 0, *, kinds: str = "", number: int = 0
) -> dict[str, str]:
    """Return the settings of the fault layer (layer.c) for ``folder`` and a log beside it."""
    log = folder.with_name("operations.log")
    log.unlink(missing_ok=True)
    return {
        "FAULT_ROOT": str(folder),
        "FAULT_LOG": str(log),
        "FAULT_DO": action,
        "FAULT_AT": str(at),
        "FAULT_KINDS": kinds,
        "FAULT_NUMBER": str(number),
    }


def operations(folder: Path) -> list[Operation]:
    """Return the operations of the last command with `fault` in a folder."""
    lines = folder.with_name("operations.log").read_text(encoding="utf-8").splitlines()
    fields = [line.split("\t") for line in lines]
    return [
        Operation(int(number), kind, path, target, int(size))
        for number, kind, path, target, size in fields
    ]


class Zygote:
    """Runs commands in children of a process that has imported everything: 0.3 s, not 4 s.

    The file ``err`` has what the command in progress has written to stderr.
    """

    def __init__(self, layer: Path, home: Path) -> None:
        self._home, self.err = home, home / "err"
        prepare(home / "warm")
        request = self._request(home / "warm", ["train", "config.yaml", "-q"], {}, {}, None)
        # The children read FAULT_… when they arm the layer; the zygote itself is not watched.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.zygote", json.dumps(request)],
            env={**environment(), "LD_PRELOAD": str(layer), "OMP_NUM_THREADS": "1"},
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def __call__(
        self,
        folder: Path,
        *arguments: object,
        env: Mapping[str, str] | None = None,
        limits: Mapping[str, int] | None = None,
        kill_after: float | None = None,
        num_ranks: int = 1,
    ) -> Ended:
        """Run a command in a folder with `resource` limits; RLIMIT_AS adds to what is mapped.

        ``num_ranks`` processes are forked for its launcher, and none imports anything.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = self._request(
            folder, [str(argument) for argument in arguments], env or {}, limits or {}, kill_after
        )
        request["num_ranks"] = num_ranks
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        out, err = (
            Path(request[name]).read_text(encoding="utf-8", errors="replace")
            for name in ("out", "err")
        )
        return Ended(code, out, err)

    def _request(
        self,
        folder: Path,
        arguments: list[str],
        env: Mapping[str, str],
        limits: Mapping[str, int],
        kill_after: float | None,
    ) -> dict[str, Any]:
        return {
            "folder": str(folder),
            "arguments": arguments,
            "environment": dict(env),
            "limits": dict(limits),
            "kill_after": kill_after,
            "num_ranks": 1,
            "out": str(self._home / "out"),
            "err": str(self.err),
        }

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


def prepare(folder: Path) -> Path:
    """Create a folder with the config and the data of these runs."""
    folder.mkdir(parents=True)
    make_workplace(folder)
    (folder / "config.yaml").write_text(CONFIG, encoding="utf-8")
    return folder


def copy_of(folder: Path, to: Path) -> Path:
    """Copy a workplace; its runs refer to the copied data."""
    shutil.copytree(folder, to, symlinks=True)
    for config in to.glob("runs/*/config.yaml"):
        config.write_text(
            config.read_text(encoding="utf-8").replace(str(folder), str(to)), encoding="utf-8"
        )
    return to


def assert_refused(ended: Ended, *codes: int) -> None:
    """Assert that a command ended with one of these codes and one message, without a traceback."""
    assert ended.code in codes, ended
    assert "Traceback" not in ended.err, ended.err
    assert "\nerror: " in f"\n{ended.err}", ended.err


def finish(convo: Zygote, folder: Path) -> Ended:
    """Do what a user does after a crash: resume, or train again if there is no checkpoint yet.

    Fails if a checkpoint was published but cannot be resumed.
    """
    ended = convo(folder, "resume", RUN, "-q")
    if ended.code == 0:
        return ended
    assert_refused(ended, 2, 5)
    manifests = list((folder / RUN).glob("checkpoints/step-*/MANIFEST.json"))
    assert not manifests, f"there is {manifests[0]}, but resume said: {ended.err}"
    return convo(folder, "train", "config.yaml", "-q")


def sample(chosen: Sequence[Operation], num: int) -> list[Operation]:
    """Return ``num`` operations, evenly spread."""
    return [
        chosen[(2 * index + 1) * len(chosen) // (2 * num)] for index in range(min(num, len(chosen)))
    ]


def report_on(failures: Mapping[str, str], num_cases: int) -> None:
    """Fail with all failures of a test that has many cases."""
    print(f"{num_cases} cases, {len(failures)} failures")
    assert num_cases > 0
    assert not failures, f"{len(failures)} of {num_cases}:\n" + "\n".join(
        f"{k}: {v}" for k, v in failures.items()
    )
