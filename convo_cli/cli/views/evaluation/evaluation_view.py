"""View of `evaluate`: models and data, scores in columns, counts, differences and cautions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from convo_cli.cli.console import print_line, printable
from convo_cli.cli.views.evaluation.score_tables import (
    has_same_tokens,
    likelihood_table,
    reply_table,
)
from convo_cli.cli.views.progress.event_lines import show, wrap_words
from convo_cli.wording import counted

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from convo_cli.errors import ConvoError
    from convo_cli.evaluation.finished.file_likelihood import ScoredTargets
    from convo_cli.evaluation.finished.model_scoring import Difference, ModelScores
    from convo_cli.events import EvaluationDone
    from convo_cli.runs.loaded import LoadedCheckpoint

_LABEL_WIDTH = 12


@dataclass(frozen=True)
class Evaluated:
    """The scores of a model, with its name and folder."""

    model: str
    """The user's name for the model."""
    folder: Path | None
    loaded: LoadedCheckpoint | None
    """The checkpoint of a run; None for an export or a hub id."""
    scores: ModelScores
    cautions: tuple[str, ...]


@dataclass(frozen=True)
class Failed:
    """One of several models that could not be scored."""

    model: str
    error: ConvoError


def as_record(models: Sequence[Evaluated | Failed]) -> dict[str, Any]:
    """Return the `--json` object: one model, or several models and their differences."""
    if len(models) == 1 and isinstance(models[0], Evaluated):
        return _record(models[0])
    return {
        "models": [
            _record(one)
            if isinstance(one, Evaluated)
            else {
                "model": one.model,
                "error": one.error.message,
                "hint": one.error.hint,
                "exit_code": one.error.exit_code,
            }
            for one in models
        ],
        "differences": [
            {
                "model": other.model,
                "minus": first.model,
                "scores": {name: asdict(one) for name, one in found.items()},
            }
            for first, other, found in _differences(models)
        ],
    }


def _record(evaluated: Evaluated) -> dict[str, Any]:
    loaded, scores = evaluated.loaded, evaluated.scores
    result, likelihood = scores.result, scores.likelihood
    of_any_tokenizer = likelihood.scores
    return {
        "model": evaluated.model,
        "source": str(evaluated.folder),
        "step": None if loaded is None else loaded.own.step,
        "checkpoint": None if loaded is None else loaded.as_record(),
        "data": [file.model_dump(include={"path", "sha256"}) for file in scores.files],
        "scores": {"loss": result.loss, "perplexity": result.perplexity, **result.metrics},
        "likelihood": {
            "bits_per_byte": of_any_tokenizer["bits-per-byte"],
            "word_perplexity": of_any_tokenizer["word-perplexity"],
            "num_bytes": int(likelihood.sums[:, 2].sum()),
            "num_words": int(likelihood.sums[:, 3].sum()),
            "all": _targets_record(likelihood.everything),
            "by_turn": [
                {"turn": turn, **_targets_record(one)}
                for turn, one in enumerate(likelihood.by_turn, 1)
                if one is not None
            ],
            "by_file": [
                {"path": file.path, **_targets_record(one)}
                for file, one in zip(scores.files, likelihood.by_file, strict=True)
                if one is not None
            ],
            "end_nll": likelihood.end_nll,
            "inner_nll": likelihood.inner_nll,
        },
        "intervals": {**scores.likelihood_intervals, **result.intervals},
        "floors": result.floors,
        "real_scores": result.real_scores,
        "floor_source": scores.floors.source or None,
        "floors_sentence": scores.floors.sentence or None,
        "leak": asdict(scores.leak),
        "counts": _counts(result),
        "findings": [asdict(finding) for finding in result.findings],
        "cautions": list(evaluated.cautions),
    }


def _targets_record(targets: ScoredTargets) -> dict[str, float]:
    return {
        "loss": targets.loss,
        "perplexity": targets.perplexity,
        "num_targets": targets.num_targets,
    }


def show_scores(console: Console, models: Sequence[Evaluated | Failed]) -> None:
    """Print models and files, tables of scores, counts, cautions, and differences."""
    names = ["model"] if len(models) == 1 else _letters(len(models))
    scored = [
        (name, one) for name, one in zip(names, models, strict=True) if isinstance(one, Evaluated)
    ]
    for name, one in zip(names, models, strict=True):
        title = f", {one.loaded.title}" if isinstance(one, Evaluated) and one.loaded else ""
        failure = "" if isinstance(one, Evaluated) else ", not scored"
        print_line(console, f"{name:<{_LABEL_WIDTH}}{one.model}{title}{failure}")
    if not scored:
        return
    for number, file in enumerate(scored[0][1].scores.files):
        print_line(console, f"{'' if number else 'data':<{_LABEL_WIDTH}}{file.path}")
    columns = [name for name, _ in scored]
    all_scores = [one.scores for _, one in scored]
    for table in (likelihood_table(columns, all_scores), reply_table(columns, all_scores)):
        if table is not None:
            console.print(table)
    if not has_same_tokens(all_scores):
        _say(
            console,
            "the models have different tokens, so they are compared per byte and per word; "
            "--json has the loss of each model",
        )
    for name, one in scored:
        prefix = "" if len(models) == 1 else f"{name}: "
        for line in _sentences(one):
            _say(console, prefix + line)
    for caution in dict.fromkeys(caution for _, one in scored for caution in one.cautions):
        about = [name for name, one in scored if caution in one.cautions]
        prefix = "" if len(about) == len(scored) else f"{', '.join(about)}: "
        _say(console, f"caution: {prefix}{caution}", "yellow")
    letters = {one.model: name for name, one in scored}
    for first, other, found in _differences(models):
        _say(console, _difference_line(letters[other.model], letters[first.model], found))


def _letters(num: int) -> list[str]:
    """Return a short name for each of several models."""
    letters = len(ascii_uppercase)
    return [ascii_uppercase[k % letters] + str(k // letters or "") for k in range(num)]


def _say(console: Console, text: str, style: str = "") -> None:
    line = printable(text)
    show(console, wrap_words(line, console.width) if console.is_terminal else line, style)


def _sentences(evaluated: Evaluated) -> Iterator[str]:
    scores = evaluated.scores
    counts = " · ".join(_counted(_counts(scores.result)))
    yield f"counted on  {counts}"
    if scores.floors.sentence:
        yield scores.floors.sentence
    leak = scores.leak
    if leak.num_trained_on is None:
        yield f"trained on these dialogues: unknown ({leak.reason})"
    else:
        yield f"trained on {leak.num_trained_on:,} of the {counted(leak.num_dialogues, 'dialogue')}"


def _differences(
    models: Sequence[Evaluated | Failed],
) -> Iterator[tuple[Evaluated, Evaluated, dict[str, Difference]]]:
    """Yield the first model, each other one, and the differences of its scores."""
    from convo_cli.evaluation.finished.model_scoring import compare

    scored = [one for one in models if isinstance(one, Evaluated)]
    for other in scored[1:]:
        yield scored[0], other, compare(other.scores, scored[0].scores)


def _difference_line(name: str, first: str, found: Mapping[str, Difference]) -> str:
    """List the scores that differ clearly: the 95 % interval of the difference excludes 0."""
    clear, unclear = [], []
    for score, one in found.items():
        if one.interval is None:
            continue
        low, high = one.interval
        if low > 0 or high < 0:
            clear.append(f"{score} {one.value:+.3g} ({low:+.3g} to {high:+.3g})")
        else:
            unclear.append(score)
    parts = [f"{name} minus {first} with 95 % intervals: {', '.join(clear)}"] if clear else []
    if unclear:
        parts.append(f"no clear difference between {name} and {first}: {', '.join(unclear)}")
    return "; ".join(parts)


_SEVERAL, _SPLIT = "replies with several references", "split dialogues"
_SINGULAR = {
    "targets": "target",
    "replies": "reply",
    _SEVERAL: "reply with several references",
    _SPLIT: "split dialogue",
}


def _counted(counts: Mapping[str, int]) -> list[str]:
    return [
        f"{count:,} {_SINGULAR[name] if count == 1 else name}"
        for name, count in counts.items()
        if count or name not in (_SEVERAL, _SPLIT)
    ]


def _counts(result: EvaluationDone) -> Mapping[str, int]:
    return {
        "targets": result.num_targets,
        "replies": len(result.samples),
        _SEVERAL: sum(bool(sample.other_references) for sample in result.samples),
        _SPLIT: result.num_split,
    }
