"""What `train` and `resume` show: progress on stderr, and at the end the result with what to try next."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from convo_cli.cli.console import print_json, printable, stderr_console
from convo_cli.cli.views.progress import make_progress
from convo_cli.config.schema import RunConfig
from convo_cli.errors import DivergedError, EvaluationDivergedError, typeable
from convo_cli.events import Emit, Event, RunStarted
from convo_cli.runs.directory import RunDirectory

if TYPE_CHECKING:
    from convo_cli.training.recorded import RunResult


@contextmanager
def watched(
    config: RunConfig, run_dir: Path, *, is_quiet: bool, as_json: bool, command: str
) -> Iterator[tuple[Emit, Callable[[RunResult], None]]]:
    """A reporter for the run, and a function that shows its result once the view is closed."""
    results: list[RunResult] = []
    console = stderr_console()
    progress = make_progress(
        console, is_quiet=is_quiet, log_every=config.logging.every_steps, show_samples=config.evaluation.show_samples
    )
    begun_in = run_dir  # a fork has a directory of its own
    try:
        with progress as show:

            def emit(event: Event) -> None:
                nonlocal begun_in
                if isinstance(event, RunStarted):
                    begun_in = event.run_dir
                show(event)

            yield emit, results.append
    except DivergedError as error:
        hint = error.hint or ""
        is_of_evaluation = isinstance(error, EvaluationDivergedError)
        run = RunDirectory(begun_in)
        if run.pointer("best-loss").exists() if is_of_evaluation else run.is_run:
            older = " --load loss" if is_of_evaluation else ""
            slower = f"training.learning_rate={config.training.learning_rate / 3:.2g}"
            hint += f"\n      convo resume {typeable(begun_in)}{older} --set {slower}"
        raise DivergedError(error.message, hint=hint) from error
    for result in results:
        if as_json:
            print_json(command, as_record(result))
        else:
            show_result(result, is_quiet=is_quiet)


def as_record(result: RunResult) -> dict[str, object]:
    """The result as the object of `--json`."""
    return {
        "run_dir": str(result.run_dir),
        "step": result.step,
        "reason": result.reason,
        "best_loss": result.best_loss,
        "best_metric": result.best_metric,
    }


def show_result(result: RunResult, *, is_quiet: bool) -> None:
    """The run directory on stdout; the next commands on stderr."""
    sys.stdout.write(f"{printable(str(result.run_dir))}\n")
    if not is_quiet:
        run_dir, export = typeable(result.run_dir), typeable(_new_export(result))
        further = "".join(f" --set {setting}" for setting in result.to_continue)
        sys.stderr.write(
            f"next:\n  convo chat {run_dir}\n  convo export {run_dir} {export}\n  convo resume {run_dir}{further}\n"
        )


def _new_export(result: RunResult) -> Path:
    """A folder for an export of the run that does not exist yet."""
    name = result.run_dir.resolve().name
    names = itertools.chain((name, f"{name}-{result.step}"), (f"{name}-{result.step}-{k}" for k in itertools.count(2)))
    return next(path for path in (Path("exports", name) for name in names) if not os.path.lexists(path))
