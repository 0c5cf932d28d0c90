"""View of `train` and `resume`: progress on stderr, then the run directory and next commands."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from convo_cli.cli.console import printable, stderr_console
from convo_cli.cli.views.progress.reporter import make_progress
from convo_cli.config.schema import RunConfig
from convo_cli.errors import DivergedError, EvaluationDivergedError, RankLostError, typeable
from convo_cli.events import Emit, Event, RunStarted
from convo_cli.runs.directory import RunDirectory, how_to_continue

if TYPE_CHECKING:
    from convo_cli.training.outcome.result import RunResult


@contextmanager
def run_progress(config: RunConfig, run_dir: Path, *, is_quiet: bool) -> Iterator[Emit]:
    """Yield the reporter of a run; an error about a diverged loss gets a command to continue."""
    begun_in = run_dir  # a fork has a directory of its own
    progress = make_progress(
        stderr_console(),
        is_quiet=is_quiet,
        log_every=config.logging.every_steps,
        show_samples=config.evaluation.show_samples,
    )
    try:
        with progress as show:

            def emit(event: Event) -> None:
                nonlocal begun_in
                if isinstance(event, RunStarted):
                    begun_in = event.run_dir
                show(event)

            yield emit
    except RankLostError as error:
        raise RankLostError(error.message, hint=how_to_continue(RunDirectory(begun_in))) from error
    except DivergedError as error:
        slower = f"training.learning_rate={config.training.learning_rate / 3:.2g}"
        hint = (error.hint or "") + _how_to_continue(RunDirectory(begun_in), error, slower)
        raise DivergedError(error.message, hint=hint) from error


def _how_to_continue(run: RunDirectory, error: DivergedError, setting: str) -> str:
    """Return a line with a command that resumes before the divergence; empty if none can."""
    is_of_evaluation = isinstance(error, EvaluationDivergedError)
    if is_of_evaluation and run.pointer("best-loss").exists():
        return f"\n      convo resume {typeable(run.path)} --load loss --set {setting}"
    if not is_of_evaluation and run.is_run:
        return f"\n      convo resume {typeable(run.path)} --set {setting}"
    return ""


def as_record(result: RunResult) -> dict[str, object]:
    """Return the result as the `--json` object."""
    return {
        "run_dir": str(result.run_dir),
        "step": result.step,
        "reason": result.reason,
        "best_loss": result.best_loss,
        "best_metric": result.best_metric,
        "best": [asdict(score) for score in result.best],
        "test": None
        if result.test is None
        else result.test.model_dump(mode="json", exclude={"format", "checksum"}),
    }


def show_result(result: RunResult, *, is_quiet: bool) -> None:
    """Print the run directory on stdout and, unless quiet, the next commands on stderr."""
    sys.stdout.write(f"{printable(str(result.run_dir))}\n")
    if not is_quiet:
        sys.stderr.write(_test_lines(result))
        run_dir, export = typeable(result.run_dir), typeable(_new_export(result))
        further = "".join(f" --set {setting}" for setting in result.to_continue)
        sys.stderr.write(
            f"next:\n  convo chat {run_dir}\n  convo export {run_dir} {export}\n"
            f"  convo resume {run_dir}{further}\n{_better(result)}"
        )


def _test_lines(result: RunResult) -> str:
    """Return the scores on the test data, the file that holds them, and their cautions."""
    if (test := result.test) is None:
        return ""
    is_best = any(score.name == "loss" and score.step == test.step for score in result.best)
    scores = {"loss": test.loss, "perplexity": test.perplexity, **test.metrics}
    line = "  ".join(f"{name} {value:.4g}" for name, value in scores.items())
    which = "best by loss" if is_best else "last checkpoint"
    place = printable(str(RunDirectory(result.run_dir).test))
    cautions = "".join(f"  caution: {printable(caution)}\n" for caution in test.cautions)
    floors = f"  {printable(test.floors_sentence)}\n" if test.floors_sentence else ""
    return f"test  {line}  (step {test.step}, {which}; {place})\n{floors}{cautions}"


def _better(result: RunResult) -> str:
    """Return lines about the best checkpoints that are not the last one, with commands for them."""
    run, lines = RunDirectory(result.run_dir), []
    for score in result.better:
        if not run.checkpoint(score.step).is_dir():
            continue
        if score.name == "loss":
            last = "" if result.last_loss is None else f" (last step: {result.last_loss:.3f})"
            lines.append(
                f"the best validation loss is {score.value:.3f}, at step {score.step}{last}; chat, "
                f"evaluate and export load that checkpoint; to load the last one:\n"
                f"  convo chat {typeable(run.path)} --load last\n"
            )
        else:
            lines.append(
                f"the best {printable(score.name)} is {score.value:.3f}, at step {score.step}; to "
                f"load that checkpoint:\n  convo chat {typeable(run.path)} --load metric\n"
            )
    return "".join(lines)


def _new_export(result: RunResult) -> Path:
    """Return a folder name for an export of the run that does not exist yet."""
    name = result.run_dir.resolve().name
    names = itertools.chain(
        (name, f"{name}-{result.step}"), (f"{name}-{result.step}-{k}" for k in itertools.count(2))
    )
    return next(
        path for path in (Path("exports", name) for name in names) if not os.path.lexists(path)
    )
