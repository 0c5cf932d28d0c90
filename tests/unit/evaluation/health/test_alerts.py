"""Warnings about a run: of each sign once, also if the run is resumed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from convo_cli.evaluation.health.alerts import Alerts, overfitting
from convo_cli.events import HealthFinding, Notice
from convo_cli.runs.logs.event_log import MetricsLog, read_metrics
from tests.run_events import evaluation, step

ECHO, END = HealthFinding("echo", "the model repeats"), HealthFinding("end-token", "it never ends")


def at(number, loss=3.0, findings=()):
    return replace(evaluation(number), loss=loss, findings=tuple(findings))


def warnings_of(events, records=()):
    found = []
    alerts = Alerts(found.append, records)
    for event in events:
        alerts(event)
    assert all(isinstance(one, Notice) and one.is_warning for one in found)
    return [one.message for one in found], alerts


def test_each_kind_is_reported_once():
    events = [at(1, findings=[ECHO]), at(2, findings=[ECHO, END]), at(3, findings=[END])]
    assert warnings_of(events)[0] == ["the model repeats", "it never ends"]


@pytest.mark.parametrize(("loss", "is_reported"), [(6.1, True), (5.9, False)])
def test_a_validation_loss_above_twice_the_training_loss_is_reported_once(loss, is_reported):
    events = [*(step(k, loss=3.0) for k in range(1, 4)), at(3, loss), step(4, loss=3.0), at(4, 9.0)]
    messages, _ = warnings_of(events)
    assert len(messages) == 1
    assert (f"at step 3 is {loss:.3f}" in messages[0]) == is_reported
    assert "training loss, 3.000 (mean of the last 100 steps)" in messages[0]


def test_the_training_loss_is_the_mean_of_the_last_100_steps_with_targets():
    steps = [step(k, loss=9.0) for k in range(1, 51)] + [step(k, loss=2.0) for k in range(51, 151)]
    without_targets = replace(step(151, loss=0.0), num_targets=0)
    _, alerts = warnings_of([*steps, without_targets])
    assert alerts.curve.loss == pytest.approx(2.0)
    assert alerts.curve.sum_of_rates == pytest.approx(151 * 3.3e-4)
    assert Alerts(print).curve.loss is None


def test_before_the_first_step_nothing_is_called_overfitting():
    assert overfitting(at(0, 99.0), None) is None


def test_a_resumed_run_knows_what_was_reported_and_the_losses(tmp_path):
    events = [step(1, loss=1.0), at(1, 5.0, [ECHO]), step(2, loss=1.0)]
    log = MetricsLog(tmp_path / "metrics.jsonl", tmp_path / "samples.jsonl")
    for event in events:
        log(event)
    log.close()
    later = [step(3, loss=1.0), at(3, 5.0, [ECHO, END])]
    messages, alerts = warnings_of(later, read_metrics(tmp_path / "metrics.jsonl"))
    assert messages == ["it never ends"]
    assert alerts.curve.sum_of_rates == warnings_of([*events, *later])[1].curve.sum_of_rates


@pytest.mark.parametrize(
    ("losses", "is_reported"),
    [
        ({0: 3.0, 1: 3.5, 2: 3.1}, True),
        ({0: 3.0, 1: 2.9, 2: 3.1}, False),
        ({1: 3.0, 2: 3.5}, False),
        ({0: 3.0}, False),
    ],
)
def test_the_end_says_if_training_never_improved_the_pretrained_model(losses, is_reported):
    found = []
    alerts = Alerts(found.append)
    for number, loss in losses.items():
        alerts(at(number, loss))
    alerts.finish()
    assert len(found) == is_reported
    if found:
        assert "3.000 at step 0, and later 3.100 at best (step 2)" in found[0].message
