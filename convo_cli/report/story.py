"""The summary of a run in sentences: what happened, the best checkpoint, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from convo_cli.errors import typeable
from convo_cli.report.reading.gathering import Gathered
from convo_cli.report.reading.run_log import Evaluation
from convo_cli.report.shown import device_of, duration, number, short_number, shown
from convo_cli.wording import counted

_WORSE = 1.02
"""If the last validation loss is above this multiple of the lowest one, the model got worse."""


@dataclass(frozen=True, slots=True)
class Next:
    """Advice, with the command for it or an empty text."""

    text: str
    command: str = ""


def headline(run: Gathered) -> str:
    """Return a sentence with model, data, steps, time and device."""
    log = run.log
    if not log.steps:
        return "No step has been logged yet." if run.is_running else "No step was logged."
    start = log.starts[-1] if log.starts else {}
    training = start.get("training")
    dialogues = training.get("num_dialogues") if isinstance(training, dict) else None
    source = run.config.model.pretrained if run.config else None
    what = "A new model" if source is None else f"The pretrained model {shown(source, 80)}"
    if isinstance(start.get("num_parameters"), int):
        what += f" with {short_number(start['num_parameters'])} parameters"
    has = "is being" if run.is_running else "was"
    on = f" on {counted(dialogues, 'dialogue')}" if isinstance(dialogues, int) else ""
    done = f"{log.steps[-1]:,}"
    if run.max_steps is not None and run.max_steps != log.steps[-1]:
        done += f" of {run.max_steps:,}"
    details = [f"{log.epochs:.2g} epochs"] if log.epochs else []
    details += [f"{short_number(log.tokens_seen)} tokens"] if log.tokens_seen else []
    seen = f" ({', '.join(details)})" if details else ""
    device = f" on {device_of(start)}" if "device" in start else ""
    return f"{what} {has} trained{on} for {done} steps{seen} in {duration(log.seconds)}{device}."


def outcome(run: Gathered) -> str:
    """Return sentences about the end of the run and the course of the validation loss."""
    return " ".join(_outcome(run))


def _outcome(run: Gathered) -> Iterator[str]:
    log = run.log
    if run.state == "running":
        yield f"The run is still running: all numbers are up to step {log.last_step:,}."
    elif run.state == "ended early" and log.starts:
        yield (
            "The log ends early: the process was killed, or an error stopped it, such as a loss "
            "that is not finite."
        )
    elif log.finished is not None:
        yield f"It ended with: {shown(str(log.finished.get('reason')), 200)}."
    scored = [one for one in log.evaluations.values() if one.loss is not None]
    if not scored:
        kept = run.saved_as("best by loss")
        if kept is None:
            yield "There is no validation loss."
        else:
            loss = f"{number(kept.loss)} at step {kept.step:,}"
            yield f"The log has no validation loss; best-loss.json keeps the lowest one: {loss}."
        return
    best, last = _lowest(scored), scored[-1]
    if len(scored) == 1:
        yield f"Validation loss was {number(best.loss)} at step {best.step:,}."
    elif best is last:
        yield (
            f"Validation loss went from {number(scored[0].loss)} at step {scored[0].step:,} to "
            f"{number(last.loss)} at step {last.step:,}, its lowest value."
        )
    else:
        yield (
            f"Validation loss was lowest at step {best.step:,}, {number(best.loss)}; the last one "
            f"is {number(last.loss)}."
        )
    if num_findings := len(last.findings):
        yield f"The last evaluation has {counted(num_findings, 'health finding')}."


def _lowest(scored: Sequence[Evaluation]) -> Evaluation:
    return min(scored, key=lambda one: float("inf") if one.loss is None else one.loss)


def facts(run: Gathered) -> list[tuple[str, str, str]]:
    """Return name, value and detail of the main numbers."""
    found = []
    best = run.best_step
    evaluation = run.log.evaluations.get(best) if best is not None else None
    if evaluation is not None and evaluation.loss is not None:
        detail = f"lowest, at step {best:,}; perplexity {number(evaluation.perplexity)}"
        found.append(("validation loss", number(evaluation.loss), detail))
    if (saved := run.saved_as("best by metric")) is not None:
        found.append((f"best {run.metric}", number(saved.metric, 3), f"step {saved.step:,}"))
    if run.test is not None:
        detail = f"step {run.test.step:,}; perplexity {number(run.test.perplexity)}"
        found.append(("test loss", number(run.test.loss), detail))
    if losses := run.log.curve("loss"):
        found.append(("last training loss", number(losses[-1][1]), f"step {losses[-1][0]:,}"))
    if run.log.seconds:
        speed = run.log.tokens_seen / run.log.seconds
        found.append(("tokens per second", short_number(round(speed)), "mean of the run"))
    return found


def best_checkpoint(run: Gathered) -> str:
    """Return which checkpoint to use, in a sentence."""
    best, last = run.saved_as("best by loss"), run.saved_as("last")
    if best is not None:
        also = " It is also the last one." if best is last else ""
        return f"Best checkpoint: step {best.step:,}, with the lowest validation loss.{also}"
    if last is not None:
        return f"Newest checkpoint: step {last.step:,}; none has a validation loss."
    return "There is no readable checkpoint."


def next_steps(run: Gathered) -> list[Next]:
    """Return advice on what to do next, with commands."""
    return list(_next_steps(run))


def _next_steps(run: Gathered) -> Iterator[Next]:
    path = command_path(run.run.path)
    evaluations = [one for one in run.log.evaluations.values() if one.loss is not None]
    if evaluations and evaluations[-1].findings:
        yield Next("Read the health findings below first: more steps may not help.")
    if run.state == "running":
        yield Next("Write this page again", f"convo report {path}")
        return
    if not run.saved:
        yield Next("Restore the checkpoints from a copy, or train again under another name")
        return
    if run.state in ("stopped", "ended early"):
        yield Next("Continue the run", f"convo resume {path}")
    elif len(evaluations) > 1 and run.log.last_step:
        best, last = _lowest(evaluations), evaluations[-1]
        if best is last:
            more = f"training.max_steps={2 * run.log.last_step}"
            yield Next(
                "The validation loss was still falling, so more steps may help",
                f"convo resume {path} --set {more}",
            )
        elif best.loss and (last.loss or 0) > _WORSE * best.loss:
            yield Next(
                "The validation loss rose after its lowest value, so more steps do not help; more "
                "data, a lower learning rate or dropout may"
            )
    elif not evaluations and run.saved_as("best by loss") is None:
        yield Next(
            "Hold back dialogues for validation in the next run, so that the best checkpoint is "
            "known",
            "convo train config.yaml --set data.validation_split=0.05",
        )
    yield Next("Talk to the best checkpoint", f"convo chat {path}")
    yield Next("Score it on other data", f"convo evaluate {path} test.jsonl")
    yield Next("Compare it with another run", f"convo report {path} OTHER_RUN")


def command_path(path: Path) -> str:
    """Return the path for a command line; only its name if it is absolute."""
    return typeable(path if not path.is_absolute() else Path(path.resolve().name))
