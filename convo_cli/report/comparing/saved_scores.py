"""Scores in a file of `convo evaluate --json`, for models without the log of a run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convo_cli.errors import UsageError
from convo_cli.report.comparing.members import Member
from convo_cli.report.reading.run_log import intervals_of, number_of, numbers_of
from convo_cli.storage.files import UnsafeFileError, read_file

_HINT = "write the file with: convo evaluate MODEL… test.jsonl --json > scores.json"


@dataclass(frozen=True, slots=True)
class SavedScores:
    """Scores of one model on data files."""

    data: tuple[tuple[str, str], ...]
    """Path and SHA-256 of each file."""
    scores: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]


def read_scores(path: Path, members: Sequence[Member]) -> tuple[SavedScores | None, ...]:
    """Return the scores of each member, found by its path; None if the file lacks the member.

    UsageError if the file is no output of `convo evaluate --json`, or has none of the members.
    """
    try:
        found = json.loads(read_file(path.resolve()))
    except UnsafeFileError as error:
        raise UsageError(f"--scores {path}: {error.strerror}", hint=_HINT) from error
    except OSError as error:
        raise UsageError(f"--scores {path}: {error.strerror}", hint=_HINT) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--scores {path}: not one JSON object", hint=_HINT) from error
    if not isinstance(found, dict) or found.get("command") != "evaluate":
        raise UsageError(f"--scores {path}: not the output of convo evaluate --json", hint=_HINT)
    if isinstance(failure := found.get("error"), dict):
        raise UsageError(
            f"--scores {path}: convo evaluate failed: {failure.get('message')}",
            hint=_HINT,
        )
    known = dict(_models(found))
    scores = tuple(known.get(Path(member.source).resolve()) for member in members)
    if not any(scores):
        models = f", only of {', '.join(map(str, list(known)[:5]))}" if known else ""
        raise UsageError(
            f"--scores {path}: it has no scores of the given models{models}",
            hint="give the models by the same paths as convo evaluate, from the same folder",
        )
    return scores


def _models(found: Mapping[str, Any]) -> Iterator[tuple[Path, SavedScores]]:
    listed = found.get("models")
    for one in listed if isinstance(listed, list) else [found]:
        if not isinstance(one, dict) or not isinstance(one.get("model"), str):
            continue
        scores = numbers_of(one.get("scores"))
        likelihood = one.get("likelihood")
        for name in ("bits_per_byte", "word_perplexity"):
            value = number_of(likelihood.get(name)) if isinstance(likelihood, dict) else None
            if value is not None:
                scores[name.replace("_", "-")] = value
        if scores and "\0" not in one["model"]:
            data = tuple(_files(one.get("data")))
            yield (
                Path(one["model"]).resolve(),
                SavedScores(data, scores, intervals_of(one.get("intervals"))),
            )


def _files(data: Any) -> Iterator[tuple[str, str]]:
    for one in data if isinstance(data, list) else []:
        if isinstance(one, dict):
            yield str(one.get("path")), str(one.get("sha256"))
