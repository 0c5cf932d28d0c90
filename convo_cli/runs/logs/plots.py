"""Plots in a run directory: the learning-rate schedule before the first step, the curves
afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convo_cli.runs.logs.event_log import read_metrics
from convo_cli.storage.atomic import disk_errors, write_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIZE = (12.0, 7.0)  # inches, at 100 dots each
_MAX_POINTS = 4000  # of a schedule: three per pixel column
_MAX_SCORE_PANELS = 2
_SCORE = re.compile(r"[A-Za-z][\w.+-]{0,39}", re.ASCII)  # a foreign log may have any text as a name
_BLUE, _ORANGE, _GREY = "#1f5fa8", "#d95f02", "#5b6470"
_SERIES = (_BLUE, _ORANGE, "#2a8f6d", "#8a4fa3")

_STYLE = {
    "font.family": ["DejaVu Sans"],
    "font.size": 11.0,
    "axes.titlesize": 14.0,
    "axes.titlelocation": "left",
    "axes.titlepad": 12.0,
    "axes.titleweight": "bold",
    "axes.labelcolor": _GREY,
    "axes.edgecolor": "#b8bec6",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": "#e3e6ea",
    "xtick.color": _GREY,
    "ytick.color": _GREY,
    "legend.frameon": False,
    "agg.path.chunksize": 10_000,
    "text.parse_math": False,
}

Points = tuple[list[int], list[float]]
"""Steps and values."""


def plot_schedule(
    path: Path, learning_rate: Callable[[int], float], num_steps: int, corners: Iterable[int] = ()
) -> None:
    """Draw the learning rate of a run as a PNG; ``learning_rate`` is a function of the finished
    steps.

    It is exact at the first step, the last step and the ``corners``, steps at which the function is
    not smooth.
    """
    steps = _sampled_steps(num_steps, corners)
    with _drawing(path) as figure:
        axes = figure.subplots()
        axes.set_title("Learning rate of every step")
        _draw_learning_rate(
            axes, ([step + 1 for step in steps], [learning_rate(step) for step in steps])
        )
        _finish(axes, num_steps=num_steps)


def plot_losses(path: Path, metrics_path: Path) -> None:
    """Plot a metrics log: both losses, the learning rate, and the scores of the replies if there
    are any.
    """
    curves = _Curves(metrics_path)
    families = curves.score_families()[:_MAX_SCORE_PANELS]
    with _drawing(path) as figure:
        bottom = ["learning rate", *families]
        rows: list[Any] = [["loss"] * len(bottom), bottom]
        panels: dict[str, Axes] = figure.subplot_mosaic(rows, height_ratios=[2, 1])
        _draw_losses(panels["loss"], curves)
        _draw_learning_rate(panels["learning rate"], curves.learning_rate)
        for family in families:
            panels[family].set_ylabel(f"{family} of the replies")
            for color, (name, points) in zip(_SERIES, curves.scores_of(family), strict=False):
                _draw_line(panels[family], points, color=color, label=name, marker="o")
            _start_at_zero(panels[family])
            _draw_legend(panels[family])
        for axes in panels.values():
            _finish(axes, num_steps=curves.num_steps)


def _draw_losses(axes: Axes, curves: _Curves) -> None:
    axes.set_title("Training and validation loss")
    axes.set_ylabel("loss (nats per target token)")
    steps, losses = curves.train_loss
    if len(steps) < 10:
        _draw_line(axes, (steps, losses), color=_BLUE, label="training")
    else:
        _draw_line(
            axes,
            (steps, losses),
            color=_BLUE,
            label="training, each step",
            linewidth=0.8,
            alpha=0.35,
        )
        _draw_line(axes, (steps, _smoothed(losses)), color=_BLUE, label="training, smoothed")
    _draw_line(axes, curves.validation_loss, color=_ORANGE, label="validation", marker="o")
    if axes.lines:
        _draw_legend(axes)


def _draw_learning_rate(axes: Axes, points: Points) -> None:
    axes.set_ylabel("learning rate")
    _draw_line(axes, points, color=_BLUE)
    _start_at_zero(axes)
    axes.yaxis.set_major_formatter(lambda rate, _: _scientific(rate))


def _scientific(value: float) -> str:
    """Format a number as people write learning rates: 5e-4."""
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}" if value else "0"


class _Curves:
    """The numbers of a metrics log, without nulls; if a step was logged twice, its last record
    counts.
    """

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

    def score_families(self) -> list[str]:
        """Return the names before the dash (bleu of bleu-2 and bleu-4), whose scores share a scale,
        in log order.
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


def _smoothed(values: Sequence[float]) -> list[float]:
    """Return means over a centred window, a fiftieth of the run wide, which has no lag, unlike a
    running average.
    """
    half = max(2, len(values) // 100)
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    index = np.arange(len(values))
    left, right = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    means: list[float] = ((sums[right] - sums[left]) / (right - left)).tolist()
    return means


def _sampled_steps(num_steps: int, corners: Iterable[int]) -> list[int]:
    """Return about ``_MAX_POINTS`` steps at most: evenly spread from 0, the last one, and the
    corners.
    """
    stride = max(1, -(-num_steps // _MAX_POINTS))
    special = {step for step in (*corners, num_steps - 1) if 0 <= step < num_steps}
    return sorted(special.union(range(0, num_steps, stride)))


def _draw_line(axes: Axes, points: Points, *, color: str, marker: str = "", **style: Any) -> None:
    """Draw a curve; a single point is drawn as a dot."""
    steps, values = points
    if steps:
        axes.plot(
            steps,
            values,
            color=color,
            marker="o" if len(steps) == 1 else marker,
            markersize=4,
            **style,
        )


def _start_at_zero(axes: Axes) -> None:
    axes.update_datalim([(1, 0)])
    axes.autoscale_view()
    axes.set_ylim(bottom=0)


def _draw_legend(axes: Axes) -> None:
    """Put the legend above the panel, where it hides no curve."""
    axes.legend(
        loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0.2, columnspacing=1.4
    )


def _finish(axes: Axes, *, num_steps: int) -> None:
    """Give every panel of a picture the same axis of steps."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("step")
    if axes.lines:
        axes.set_xlim(0, 1.02 * num_steps)
        axes.xaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True))
        axes.xaxis.set_major_formatter("{x:,.0f}")
    else:
        axes.set(xticks=[], yticks=[])
        axes.text(
            0.5,
            0.5,
            "no steps yet",
            transform=axes.transAxes,
            ha="center",
            va="center",
            color=_GREY,
        )


@contextmanager
def _drawing(path: Path) -> Iterator[Figure]:
    """Yield a figure; write it to the PNG ``path``, whole or not at all, when the block ends
    without an error.
    """
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # The user's matplotlibrc is ignored, because it could ask for LaTeX.
    with matplotlib.style.context(_STYLE, after_reset=True):
        figure = Figure(figsize=_SIZE, dpi=100, facecolor="white")
        figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
        FigureCanvasAgg(figure)
        yield figure
        png = BytesIO()
        figure.savefig(png, format="png")
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, png.getvalue(), below=path.parent.parent)
