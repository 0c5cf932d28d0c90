"""Plots of a run directory: the learning-rate schedule before the first step, and the curves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convo_cli.runs.logs.curves import Curves, Points, sampled_steps, smoothed
from convo_cli.runs.logs.figure import GREY, drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_SCORE_PANELS = 2
_MAX_NAME = 40  # characters of the run's name in a title
_BLUE, _ORANGE = "#1f5fa8", "#d95f02"
_SERIES = (_BLUE, _ORANGE, "#2a8f6d", "#8a4fa3")


def plot_schedule(
    path: Path,
    learning_rate: Callable[[int], float],
    num_steps: int,
    corners: Iterable[int] = (),
    *,
    run_name: str = "",
) -> None:
    """Draw the learning rate of a run as a PNG; ``learning_rate`` takes the finished steps.

    The curve is exact at the first step, the last step and the ``corners``, where the function is
    not smooth.
    """
    steps = sampled_steps(num_steps, corners)
    with drawing(path) as figure:
        axes = figure.subplots()
        axes.set_title(_title("learning rate of every step", run_name))
        _draw_learning_rate(
            axes, ([step + 1 for step in steps], [learning_rate(step) for step in steps])
        )
        _finish(axes, num_steps=num_steps)


def plot_losses(path: Path, metrics_path: Path, *, run_name: str = "") -> None:
    """Draw losses, learning rate and scores of a metrics log as a PNG."""
    curves = Curves(metrics_path)
    families = curves.score_families()[:_MAX_SCORE_PANELS]
    with drawing(path) as figure:
        bottom = ["learning rate", *families]
        rows: list[Any] = [["loss"] * len(bottom), bottom]
        panels: dict[str, Axes] = figure.subplot_mosaic(rows, height_ratios=[2, 1])
        what = "training and validation loss" if curves.best else "training loss"
        # Not a title of the panel, because the legend of a panel is in the row of its title.
        figure.suptitle(_title(what, run_name), x=0.01, ha="left", size=14.0, weight="bold")
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


def _draw_losses(axes: Axes, curves: Curves) -> None:
    axes.set_ylabel("loss (nats per target token)")
    steps, losses = curves.train_loss
    if len(steps) < 10:
        _draw_line(axes, (steps, losses), color=_BLUE, label="training")
    else:
        faint: dict[str, Any] = {"linewidth": 0.8, "alpha": 0.35}
        _draw_line(axes, (steps, losses), color=_BLUE, label="training, each step", **faint)
        _draw_line(axes, (steps, smoothed(losses)), color=_BLUE, label="training, smoothed")
    _draw_line(axes, curves.validation_loss, color=_ORANGE, label="validation", marker="o")
    if curves.best:
        step, loss = curves.best
        label = f"best: {loss:.3f} at step {step:,}"
        axes.plot([step], [loss], "*", color=_ORANGE, markersize=16, zorder=3, label=label)
    if axes.lines:
        _draw_legend(axes)


def _title(what: str, run_name: str) -> str:
    """Return a title that begins with the run's name, in which nothing acts as a line break."""
    name = "".join(char if char.isprintable() else "?" for char in run_name)
    name = name if len(name) <= _MAX_NAME else f"{name[:_MAX_NAME]}…"
    return f"{name}: {what}" if name else what.capitalize()


def _draw_learning_rate(axes: Axes, points: Points) -> None:
    axes.set_ylabel("learning rate")
    _draw_line(axes, points, color=_BLUE)
    _start_at_zero(axes)
    axes.yaxis.set_major_formatter(lambda rate, _: _scientific(rate))


def _scientific(value: float) -> str:
    """Format a number as people write learning rates: 5e-4."""
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}" if value else "0"


def _draw_line(axes: Axes, points: Points, *, color: str, marker: str = "", **style: Any) -> None:
    """Draw a curve; a single point is drawn as a dot."""
    steps, values = points
    if steps:
        marker = "o" if len(steps) == 1 else marker
        axes.plot(steps, values, color=color, marker=marker, markersize=4, **style)


def _start_at_zero(axes: Axes) -> None:
    axes.update_datalim([(1, 0)])
    axes.autoscale_view()
    axes.set_ylim(bottom=0)


def _draw_legend(axes: Axes) -> None:
    """Put the legend above the panel, where it hides no curve."""
    axes.legend(
        loc="lower right", bbox_to_anchor=(1, 1), ncols=4, borderaxespad=0.2, columnspacing=1.4
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
        center: dict[str, Any] = {"transform": axes.transAxes, "ha": "center", "va": "center"}
        axes.text(0.5, 0.5, "no steps yet", color=GREY, **center)
