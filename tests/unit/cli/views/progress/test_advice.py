"""Advice about unsuitable settings: given once, with numbers, and only when it applies."""

from __future__ import annotations

from dataclasses import replace

import pytest

from convo_cli.cli.views.progress.advice import Adviser
from convo_cli.data.sizing.choices import EPOCHS
from convo_cli.events import Event
from tests.run_events import STARTED, FakeClock, evaluation, step

LONG = replace(STARTED, steps_per_epoch=10_000)


def advice(*events: Event | float) -> list[str]:
    """The notices for the events; a number among the events lets so many seconds pass."""
    clock = FakeClock()
    adviser = Adviser(clock)
    notices = []
    for event in events:
        if isinstance(event, (int, float)):
            clock.now += event
        elif notice := adviser(event):
            assert not notice.is_warning
            notices.append(notice.message)
    return notices


def steps(count: int, seconds: float, *, max_steps: int = 300) -> list[Event | float]:
    numbers = range(1, count + 1)
    return [e for n in numbers for e in (seconds, step(n, max_steps=max_steps, seconds=seconds))]


def test_a_run_that_reads_little_of_its_data_says_how_much() -> None:
    (message,) = advice(replace(STARTED, max_steps=300, steps_per_epoch=62_505))
    assert "trains on 0.48% of the training data" in message
    assert "300 steps, and one epoch has 62,505" in message
    assert "training.max_steps" in message


@pytest.mark.parametrize(
    "changes",
    [
        {"steps_per_epoch": 43},
        {"steps_per_epoch": 599},
        {"steps_per_epoch": 62_505, "first_step": 101},
    ],
)
def test_a_run_that_reads_most_of_its_data_or_is_resumed_says_nothing(changes: dict) -> None:
    assert advice(replace(STARTED, **changes)) == []


def test_evaluations_that_take_most_of_the_time_say_so_once() -> None:
    started = replace(STARTED, steps_per_evaluation=100)
    evaluated = [replace(evaluation(number), seconds=90) for number in (100, 200)]
    (message,) = advice(started, *steps(100, 0.3), 90, evaluated[0], 90, evaluated[1])
    assert message.startswith(
        "evaluations take about 75% of the time of this run: each takes 1:30, and the 100 steps "
        "before it 0:30. "
    )
    assert "evaluation.reply_dialogues" in message


@pytest.mark.parametrize(
    ("evaluation_seconds", "step_seconds"), [(29, 0.3), (2, 0.001)], ids=["less", "short"]
)
def test_evaluations_that_take_less_or_are_short_say_nothing(
    evaluation_seconds: float, step_seconds: float
) -> None:
    started = replace(STARTED, steps_per_evaluation=100)
    done = replace(evaluation(100), seconds=evaluation_seconds)
    assert advice(started, *steps(100, step_seconds), evaluation_seconds, done) == []


def test_one_checkpoint_at_the_end_of_a_long_run_says_what_a_crash_loses() -> None:
    started = replace(LONG, max_steps=62_505, steps_per_checkpoint=62_505.0)
    (message,) = advice(started, *steps(30, 0.5, max_steps=62_505))
    assert "saved only at the end, after 62,505 steps (about 8:40:52)" in message
    assert "`convo resume runs/convo --set checkpoints.every_steps=600`" in message


@pytest.mark.parametrize(
    ("gap", "seconds", "often"), [(5_000, 1.0, 300), (20_000, 0.001, 2_000), (30, 60.0, 3)]
)
def test_checkpoints_far_apart_in_time_or_in_steps_say_so(
    gap: int, seconds: float, often: int
) -> None:
    started = replace(LONG, max_steps=100_000, steps_per_checkpoint=gap)
    (message,) = advice(started, *steps(20, seconds, max_steps=100_000))
    assert f"saved every {gap:,} steps" in message
    assert f"checkpoints.every_steps={often}`" in message


def test_checkpoints_close_to_each_other_say_nothing() -> None:
    started = replace(LONG, max_steps=9_000, steps_per_checkpoint=9_000)
    assert advice(started, *steps(20, 0.05, max_steps=9_000)) == []
    assert advice(replace(STARTED, steps_per_checkpoint=100), *steps(300, 1.0)) == []


def test_a_replay_without_a_run_gets_no_advice() -> None:
    assert advice(*steps(20, 600.0), replace(evaluation(20), seconds=1e6)) == []


@pytest.mark.parametrize(("steps", "epoch"), [(1125, 15), (451, 15), (31, 1)])
def test_a_run_of_many_epochs_is_said_to_memorise(steps: int, epoch: int) -> None:
    (message,) = advice(replace(STARTED, max_steps=steps, steps_per_epoch=epoch))
    assert f"{steps / epoch:,.0f} times on each dialogue" in message
    assert "memorise" in message
    assert f"{EPOCHS * epoch} steps (training.max_steps)" in message
    assert advice(replace(STARTED, max_steps=steps, steps_per_epoch=epoch, first_step=2)) == []


def test_thirty_epochs_are_fine() -> None:
    assert advice(replace(STARTED, max_steps=300, steps_per_epoch=10)) == []


def test_a_batch_above_the_number_of_examples_is_a_notice_with_both_numbers() -> None:
    started = replace(STARTED, max_steps=3, steps_per_epoch=1)
    examples = started.training.num_examples
    (message,) = advice(replace(started, batch_size=examples + 1))
    assert f"training.batch_size is {examples + 1:,}" in message
    assert f"the training data has {examples:,} example" in message
    assert advice(replace(started, batch_size=examples)) == []
    assert advice(replace(started, batch_size=None)) == []
