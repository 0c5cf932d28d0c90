"""The page of a run that is being trained: written at evaluations, never a reason to stop."""

from __future__ import annotations

import pytest

from convo_cli.events import CheckpointSaved, Notice, RunFinished
from convo_cli.report.live_page import LivePage
from tests.run_events import FakeClock, step
from tests.written_runs import healthy, scored, write_run


class WorkingClock(FakeClock):
    """A clock that advances by a second whenever it is read, so a page takes a second or two."""

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", healthy(60, 20)[:-1])


def test_every_evaluation_writes_the_page(run):
    seen = []
    page = LivePage(run, seen.append, clock=FakeClock())
    page(step(1))
    page(CheckpointSaved(20, run.checkpoint(20)))
    assert not run.report.exists()
    page(scored(20, 3.0))
    assert "The run is still running" in run.report.read_text(encoding="utf-8")
    assert seen == []


def test_the_end_writes_it_too(run):
    page = LivePage(run, lambda event: None, clock=FakeClock())
    page(RunFinished(60, "all 60 steps done"))
    assert "The run is still running" not in run.report.read_text(encoding="utf-8")


def test_pages_take_a_small_part_of_the_time(run):
    clock = WorkingClock()
    page = LivePage(run, lambda event: None, clock=clock)
    page(scored(20, 3.0))
    run.report.unlink()
    page(scored(40, 2.5))
    page(step(41))
    assert not run.report.exists()
    clock.now += 100
    page(step(42))
    assert run.report.exists()
    run.report.unlink()
    clock.now += 100
    page(step(43))
    assert not run.report.exists()


def test_a_failure_is_one_warning_and_no_error(run):
    seen = []
    page = LivePage(run, seen.append, clock=FakeClock())
    run.report.mkdir()
    page(scored(20, 3.0))
    page(scored(40, 3.0))
    (notice,) = seen
    assert isinstance(notice, Notice)
    assert notice.is_warning
    assert "report.html was not written (" in notice.message
    assert notice.message.endswith("a directory); training is not affected")
