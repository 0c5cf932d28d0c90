"""CPU time and memory of `convo chat` until it refuses each hostile model folder.

    python benchmarks/bench_hostile_folders.py
    python benchmarks/bench_hostile_folders.py --command train --only huge_vocabulary

CPU time includes all processes of the command. Memory is the peak of the main process and of the
bounded one, sampled every 10 ms (Linux). `--code` is a folder with another convo_cli to compare
with. Each process may use at most 60 s of CPU time and 8 GiB of address space, so that unbounded
work ends too.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.commands import make_workplace, settings  # noqa: E402
from tests.hostile_folders import FOLDERS, harmless  # noqa: E402

MAIN = "from convo_cli.__main__ import main; main()"
TRAIN = settings(
    "name=new", "model.scratch=null", "model.pretrained=model", "training.max_steps=1",
    "training.warmup_steps=0", "data.validation=[]", "dialogue.template=turns",
)  # fmt: skip
COMMANDS = {"chat": ["chat", "model"], "train": ["train", "config.yaml", "-q", *TRAIN]}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--command", choices=COMMANDS, default="chat")
    parser.add_argument("--code", type=Path, default=ROOT)
    parser.add_argument("--only", nargs="*", choices=FOLDERS, default=list(FOLDERS))
    arguments = parser.parse_args()
    print(f"{'folder':<26} {'exit':>4} {'CPU s':>6} {'main MiB':>8} {'other MiB':>9}  message")
    makers = {"(harmless)": harmless} | {name: FOLDERS[name] for name in arguments.only}
    for name, make in makers.items():
        with tempfile.TemporaryDirectory() as place:
            make(make_workplace(Path(place)) / "model")
            row = measure(Path(place), COMMANDS[arguments.command], arguments.code)
            print(f"{name:<26} {row}", flush=True)


def measure(place: Path, command: list[str], code: Path) -> str:
    """Return one row of the table, without the name of the folder."""
    with (place / "err").open("wb") as err, (place / "in").open("w+b") as said:
        said.write(b"Hello there, how are you?\n")
        said.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-c", MAIN, *command],
            cwd=place, stdin=said, stdout=subprocess.DEVNULL, stderr=err, preexec_fn=_limit,
            env={**os.environ, "PYTHONPATH": str(code), "NO_COLOR": "1", "OMP_NUM_THREADS": "1",
                 "RUST_BACKTRACE": "0"},
        )  # fmt: skip
        peaks = {process.pid: 0}
        while True:
            for pid in [process.pid, *_children(process.pid)]:
                peaks[pid] = max(peaks.get(pid, 0), _peak_kib(pid))
            pid, status, used = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            time.sleep(0.01)
    process.returncode = os.waitstatus_to_exitcode(status)
    own = peaks.pop(process.pid)
    lines = (place / "err").read_text(errors="replace").splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    message = next(iter(errors or lines[-1:]), "")
    seconds = used.ru_utime + used.ru_stime
    others = max(peaks.values(), default=0)
    return (
        f"{process.returncode:>4} {seconds:>6.1f} {own // 1024:>8} {others // 1024:>9}  "
        f"{message[:140]}"
    )


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
    resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _children(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []


def _peak_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


if __name__ == "__main__":
    main()
