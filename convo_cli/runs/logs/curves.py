"""Curves of a run: the numbers of metrics.jsonl by step, and the smoothed training loss."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from convo_cli.runs.logs.event_log import read_metrics

_SCORE = re.compile(r"[A-Za-z][\w.+-]{0,39}", re.ASCII)  # a foreign log may have any text as a name
_MAX_POINTS = 4000  # of a schedule: three per pixel column

Points = tuple[list[int], list[float]]
"""Steps and values."""


class Curves:
    """The numbers of a metrics log without nulls; the last record of a step counts."""

    def __init__(self, metrics_path: Path) -> None:
        train: dict[int, float] = {}
        rates: dict[int, float] = {}
        validation: dict[int, float] = {}
        scores: dict[str, dict[int, float]] = {}
        for record in read_metrics(metrics_path):
            step = record.get("step")
            if record.get("event") == "step":
                _put(train, step, record.get("loss"))
                _put(rates, step, record.get("learning_rate"))
            elif record.get("event") == "evaluation":
                _put(validation, step, record.get("loss"))
                metrics = record.get("metrics")
                for name, value in metrics.items() if isinstance(metrics, dict) else ():
                    if _SCORE.fullmatch(name):
                        _put(scores.setdefault(name, {}), step, value)
        self.train_loss = _sorted(train)
        self.learning_rate = _sorted(rates)
        self.validation_loss = _sorted(validation)
        self.num_steps = max([1, *train, *validation])
        self._scores = {name: _sorted(values) for name, values in scores.items() if values}

    @property
    def best(self) -> tuple[int, float] | None:
        """Return step and value of the lowest validation loss; None without validation."""
        points = list(zip(*self.validation_loss, strict=True))
        return min(points, key=lambda point: point[1]) if points else None

    def score_families(self) -> list[str]:
        """Return the names of the scores before the dash, in log order: bleu for bleu-2 and bleu-4.

        The scores of a family share a scale.
        """
        return list(dict.fromkeys(name.split("-")[0] for name in self._scores))

    def scores_of(self, family: str) -> list[tuple[str, Points]]:
        return [
            (name, points) for name, points in self._scores.items() if name.split("-")[0] == family
        ]


def _put(curve: dict[int, float], step: Any, value: Any) -> None:
    if isinstance(step, int) and isinstance(value, (int, float)):
        curve[step] = value


def _sorted(curve: dict[int, float]) -> Points:
    steps = sorted(curve)
    return steps, [curve[step] for step in steps]


def smoothed(values: Sequence[float]) -> list[float]:
    """Return means over a centred window, a fiftieth of the run wide.

    Unlike a running average, they do not lag behind.
    """
    count, half = len(values), max(2, len(values) // 100)
    sums = list(accumulate(values, initial=0.0))
    bounds = ((max(at - half, 0), min(at + half + 1, count)) for at in range(count))
    return [(sums[right] - sums[left]) / (right - left) for left, right in bounds]


def sampled_steps(num_steps: int, corners: Iterable[int]) -> list[int]:
    """Return a few thousand steps at most: evenly spread from 0, the last one, and the corners."""
    stride = max(1, -(-num_steps // _MAX_POINTS))
    special = {step for step in (*corners, num_steps - 1) if 0 <= step < num_steps}
    return sorted(special.union(range(0, num_steps, stride)))
