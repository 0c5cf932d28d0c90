"""Records of evaluations: read back as written, or recognised as damaged."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convo_cli.events import BestScore, EvaluationDone, StepDone
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.logs.evaluations import (
    _checksum,
    best_scores,
    better_scores,
    evaluation_of,
    evaluation_record,
    read_evaluations,
)
from convo_cli.runs.logs.event_log import MetricsLog

FINITE = st.floats(allow_nan=False, allow_infinity=False)


def evaluation(step, loss=2.0, **values):
    return EvaluationDone(
        step, loss, 7.5, 99, 1.5, **{"metrics": {"bleu-4": 0.1}, "weights": "0123abcd", **values}
    )


def write(run, *events):
    log = MetricsLog(run.metrics, run.samples, after_step=10**9)
    for event in events:
        log(event)
    log.close()


@given(
    loss=FINITE,
    perplexity=FINITE,
    metrics=st.dictionaries(st.text(), FINITE, max_size=4),
    real=st.dictionaries(st.text(), FINITE, max_size=4),
    step=st.integers(0, 2**60),
)
def test_every_evaluation_is_read_back_bit_for_bit(loss, perplexity, metrics, real, step):
    event = EvaluationDone(
        step,
        loss,
        perplexity,
        9,
        0.25,
        metrics,
        best=("loss",),
        weights="0123abcd",
        real_scores=real,
    )
    with TemporaryDirectory() as folder:
        run = RunDirectory(Path(folder))
        write(run, event)
        known = read_evaluations(run)
    assert known.by_step == {step: event}
    assert known.damaged == ()


@given(place=st.floats(0, 1), bit=st.integers(0, 7))
def test_no_flipped_bit_gives_other_scores(place, bit):
    """It is noticed, or it is outside the scores: in the time, the seconds or spaces."""
    with TemporaryDirectory() as folder:
        run = RunDirectory(Path(folder))
        events = [
            StepDone(1, 10, 2.5, 1e-3, 1.0, 64, 32, 0.5, 64, epoch=0.1),
            evaluation(1),
            evaluation(2, loss=1.0),
        ]
        write(run, *events)
        before, content = read_evaluations(run).by_step, bytearray(run.metrics.read_bytes())
        first = content.index(b"\n") + 1  # a step's own line is no evaluation
        # The last byte stays: without its line break, a line counts as unfinished.
        content[first + int(place * (len(content) - first - 2))] ^= 1 << bit
        run.metrics.write_bytes(content)
        known = read_evaluations(run)
    for step, event in before.items():
        found = known.by_step.get(step)
        same = found is not None and (found.loss, found.metrics, found.weights) == (
            event.loss,
            event.metrics,
            event.weights,
        )
        assert same or (found is None and known.damaged)
    assert known.by_step.keys() <= before.keys()


def test_the_later_of_two_evaluations_of_a_step_counts(tmp_path):
    run = RunDirectory(tmp_path)
    write(run, evaluation(4), evaluation(4, loss=3.0))
    assert read_evaluations(run).by_step[4].loss == 3.0


def test_times_are_not_sealed_and_everything_else_is():
    record = json.loads(
        json.dumps({**evaluation_record(evaluation(4)), "time": "2026-01-01T00:00:00"})
    )
    assert evaluation_of({**record, "seconds": 9.0, "time": "later"}) is not None
    for key in record.keys() - {"time", "seconds"}:
        assert evaluation_of({name: value for name, value in record.items() if name != key}) is None
        assert evaluation_of({**record, key: "other"}) is None


def test_a_record_of_a_version_without_values_of_the_real_replies_is_read():
    record = evaluation_record(evaluation(4))
    del record["real_scores"]
    found = evaluation_of({**record, "checksum": _checksum(record)})
    assert found == evaluation(4)


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        ("bleu-4", [1.0, 3.0, 3.0], 3.0),
        ("length-ratio", [0.1, 3.0, 1.2], 1.2),
        ("repetition", [0.9, 0.0, 0.5], 0.0),
        ("of another version", [1.0, 2.0, 0.0], 2.0),
    ],
)
def test_the_best_score_is_that_of_the_metrics_own_direction(metric, values, best):
    real = {metric: 0.0 if metric == "repetition" else 1.0}
    evaluations = [
        evaluation(step, 2.0 - step, metrics={metric: value}, real_scores=real)
        for step, value in enumerate(values)
    ]
    loss, score = best_scores(evaluations, metric)
    assert loss == BestScore("loss", 0.0, 2)
    assert score == BestScore(metric, best, values.index(best))
    better = better_scores(evaluations, metric, 2)
    assert better == (() if values[2] == best else (score,))


def test_a_metric_without_a_number_is_not_a_score():
    record = evaluation_record(evaluation(4, metrics={"bleu-4": 1.0, "nist-4": float("nan")}))
    assert record["metrics"] == {"bleu-4": 1.0, "nist-4": None}
    found = evaluation_of(record)
    assert found is not None
    assert found.metrics == {"bleu-4": 1.0}


JSON = st.recursive(
    st.none() | st.booleans() | st.text() | FINITE,
    lambda one: st.lists(one) | st.dictionaries(st.text(), one),
)


@given(
    key=st.sampled_from(["step", "loss", "metrics", "real_scores"]),
    value=JSON | st.dictionaries(st.just("bleu-4"), JSON),
)
def test_scores_are_numbers_or_the_record_is_damaged(key, value):
    record = {**evaluation_record(evaluation(4)), key: value}
    found = evaluation_of({**record, "checksum": _checksum(record)})
    if found is not None:
        assert isinstance(found.step, int)
        numbers = (found.loss, *found.metrics.values(), *found.real_scores.values())
        assert all(isinstance(number, float) for number in numbers)


def test_a_run_without_a_log_has_no_evaluations(tmp_path):
    known = read_evaluations(RunDirectory(tmp_path))
    assert (known.by_step, known.damaged) == ({}, ())
