"""loss.png while a run is trained: drawn at every checkpoint, cheap, and never a reason to stop."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from convo_cli.errors import DiskError
from convo_cli.events import CheckpointSaved, Event, Notice
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.logs import loss_plot
from convo_cli.runs.logs.loss_plot import LossPlot
from tests.run_events import FakeClock, evaluation, step

SAVED = CheckpointSaved(1, Path("checkpoints/step-00000001"))
Draw = Callable[..., None]


class Drawn:
    """A replacement of `plot_losses` that takes a time, or raises."""

    def __init__(self, clock: FakeClock, seconds: float = 1.0) -> None:
        self.count = 0
        self.error: Exception | None = None
        self._clock, self._seconds = clock, seconds

    def __call__(self, *args: object, **kwargs: object) -> None:
        self._clock.now += self._seconds
        self.count += 1
        if self.error is not None:
            raise self.error


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def drawn(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Drawn:
    drawn = Drawn(clock)
    monkeypatch.setattr(loss_plot, "plot_losses", drawn)
    return drawn


def make(clock: FakeClock, emit: Callable[[Event], None], path: Path = Path("run")) -> LossPlot:
    return LossPlot(RunDirectory(path), "run", emit, clock)


def test_a_run_that_is_killed_after_a_checkpoint_has_a_plot(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.metrics.write_text('{"event": "step", "step": 1, "loss": 2.0, "learning_rate": 0.1}\n')
    LossPlot(run, "name", print)(SAVED)
    assert (run.plots / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_a_plot_is_drawn_at_each_checkpoint_and_evaluation(clock: FakeClock, drawn: Drawn) -> None:
    plot = make(clock, print)
    events: list[Event] = [SAVED, evaluation(1), SAVED, SAVED]
    for number, event in enumerate(events, 1):
        clock.now += 60
        plot(step(number))
        assert drawn.count == number - 1, "a step alone needs no new plot"
        plot(event)
        assert drawn.count == number


def test_frequent_checkpoints_spend_little_time_on_plots(clock: FakeClock, drawn: Drawn) -> None:
    plot = make(clock, print)
    began = clock.now
    for number in range(1000):
        clock.now += 0.5
        plot(step(number))
        plot(SAVED)
    assert drawn.count > 10
    assert drawn.count * 1.0 < 0.06 * (clock.now - began)


def test_a_plot_that_came_too_soon_is_drawn_at_a_later_step(clock: FakeClock, drawn: Drawn) -> None:
    plot = make(clock, print)
    plot(SAVED)
    plot(evaluation(1))
    assert drawn.count == 1
    clock.now += 60
    plot(step(2))
    assert drawn.count == 2


@pytest.mark.parametrize(
    "error",
    [
        DiskError("plots/loss.png: No space left on device"),
        OSError(errno.EIO, "Input/output error"),
        ImportError("no module named matplotlib"),
        ValueError("font"),
        MemoryError(),
    ],
)
def test_a_plot_that_fails_is_one_warning(clock: FakeClock, drawn: Drawn, error: Exception) -> None:
    events: list[Event] = []
    plot = make(clock, events.append)
    drawn.error = error
    for number in range(1, 4):
        clock.now += 1e6
        plot(step(number))
        plot(SAVED)
    (notice,) = events
    assert isinstance(notice, Notice)
    assert notice.is_warning
    assert notice.message.startswith("plots/loss.png was not drawn (")
    assert notice.message.endswith("); training is not affected")
