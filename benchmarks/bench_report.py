"""Size and CPU time of `convo report`: the page of a long run, and a comparison of two.

    python benchmarks/bench_report.py
    python benchmarks/bench_report.py --steps 100000 --evaluations 5000

The runs are logs without models, written by convo's own log. CPU time is that of a whole process,
with its imports, of the writing alone inside a process that has imported everything (as during
training), and the size is that of the page.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from convo_cli.report.page import write_run_page  # noqa: E402
from convo_cli.report.reading.gathering import gather  # noqa: E402
from convo_cli.runs.directory import RunDirectory  # noqa: E402
from tests.written_runs import healthy, write_run  # noqa: E402

MAIN = "from convo_cli.__main__ import main; main()"


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--evaluations", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        every = max(1, arguments.steps // arguments.evaluations)
        for name in ("a", "b"):
            write_run(folder / name, healthy(arguments.steps, every, f"of {name}"))
        print(f"{arguments.steps:,} steps, an evaluation every {every:,}")
        print(f"{'':<22} {'CPU s':>6} {'page, kB':>9}")
        _show("convo report a", _process(folder, "a"), folder / "a" / "report.html")
        _show("during training", _writing(folder / "a"), folder / "a" / "report.html")
        both = folder / "both.html"
        _show("convo report a b -o …", _process(folder, "a", "b", "-o", both), both)


def _process(folder: Path, *arguments: object) -> float:
    """Return the CPU seconds of a whole command."""
    before = _cpu(resource.RUSAGE_CHILDREN)
    command: Sequence[str] = [sys.executable, "-c", MAIN, "report", *map(str, arguments), "-q"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True)
    return _cpu(resource.RUSAGE_CHILDREN) - before


def _writing(run: Path) -> float:
    """Return the CPU seconds of the second page of this process."""
    write_run_page(gather(RunDirectory(run), is_running=True))
    began = time.process_time()
    write_run_page(gather(RunDirectory(run), is_running=True))
    return time.process_time() - began


def _cpu(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def _show(name: str, seconds: float, page: Path) -> None:
    print(f"{name:<22} {seconds:>6.2f} {page.stat().st_size / 1000:>9.1f}", flush=True)


if __name__ == "__main__":
    main()
