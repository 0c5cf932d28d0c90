"""What an evaluation changes: the best scores, and the patience that ends a run early."""

from __future__ import annotations

from dataclasses import replace

import pytest

from convo_cli.events import EvaluationDone
from convo_cli.runs.checkpoints import Progress
from convo_cli.training.state import EarlyStopping, reason_it_is_over, take_scores

BY_LOSS, BY_METRIC = EarlyStopping("bleu-4"), EarlyStopping("bleu-4", monitors_metric=True)


def scores(loss, metric=None):
    return EvaluationDone(1, loss, 1.0, 1, 0.0, {} if metric is None else {"bleu-4": metric})


@pytest.mark.parametrize(
    ("rule", "results", "without_improvement"),
    [
        (BY_LOSS, [(3.0, 1.0), (2.0, 0.0), (2.0, 5.0), (2.5, 9.0)], [0, 0, 1, 2]),
        (replace(BY_LOSS, min_delta=0.5), [(3.0, 1.0), (2.6, 1.0), (2.0, 1.0)], [0, 1, 0]),
        (BY_METRIC, [(3.0, 1.0), (2.0, 0.0), (4.0, 2.0), (1.0, 2.0)], [0, 1, 0, 1]),
        (BY_METRIC, [(3, None), (2, 1), (1, 1), (1, None), (1, 0.5)], [0, 0, 1, 1, 2]),
    ],
    ids=["loss", "loss with a least change", "metric", "metric that is missing twice"],
)
def test_patience_counts_evaluations_without_a_better_score(
    make_state, rule, results, without_improvement
):
    state, counts = make_state(), []
    for loss, metric in results:
        take_scores(state, scores(loss, metric), rule)
        counts.append(state.progress.evaluations_without_improvement)
        assert state.is_evaluated
    assert counts == without_improvement
    assert state.progress.best_loss == min(loss for loss, _ in results)
    assert state.progress.best_metrics == {
        "bleu-4": max(metric for _, metric in results if metric is not None)
    }


def test_an_evaluation_is_returned_with_what_it_is_the_best_by(make_state):
    state, results = make_state(), [(3.0, None), (2.0, 1.0), (2.0, 2.0), (1.0, 2.0), (4.0, 1.0)]
    taken = [take_scores(state, scores(*result), BY_LOSS).best for result in results]
    assert taken == [("loss",), ("loss", "metric"), ("metric",), ("loss",), ()]


def test_the_best_of_every_metric_is_known_not_only_of_the_chosen_one(make_state):
    state = make_state()
    for values in ({"bleu-4": 1.0, "nist-2": 3.0}, {"bleu-4": 2.0, "nist-2": 1.0}):
        take_scores(state, EvaluationDone(1, 2.0, 1.0, 1, 0.0, values), BY_LOSS)
    assert state.progress.best_metrics == {"bleu-4": 2.0, "nist-2": 3.0}


def test_a_metric_whose_best_value_is_that_of_the_real_replies_improves_by_coming_closer(
    make_state,
):
    rule = EarlyStopping("length-ratio", monitors_metric=True)
    state, counts, best = make_state(), [], []
    for value in (0.4, 1.5, 2.0, 0.7, 1.2, 1.2, 0.0):
        result = EvaluationDone(
            1, 2.0, 1.0, 1, 0.0, {"length-ratio": value}, real_scores={"length-ratio": 1.0}
        )
        taken = take_scores(state, result, rule)
        counts.append(state.progress.evaluations_without_improvement)
        best.append("metric" in taken.best)
    assert counts == [0, 0, 1, 0, 0, 1, 2]
    assert best == [True, True, False, True, True, False, False]
    assert state.progress.best_metrics == {"length-ratio": 1.2}


def test_without_the_values_of_the_real_replies_such_a_metric_is_missing(make_state):
    state = make_state()
    result = EvaluationDone(1, 2.0, 1.0, 1, 0.0, {"length-ratio": 1.0})
    taken = take_scores(state, result, EarlyStopping("length-ratio", monitors_metric=True))
    assert taken.best == ("loss",)
    assert state.progress.evaluations_without_improvement == 0


@pytest.mark.parametrize(
    ("progress", "rule", "reason"),
    [
        (Progress(step=2), EarlyStopping(patience=2), None),
        (Progress(step=3), EarlyStopping(patience=2), "all 3 steps done"),
        (Progress(step=5), EarlyStopping(), "5 steps done, and training.max_steps is 3"),
        (Progress(step=2, evaluations_without_improvement=1), EarlyStopping(patience=2), None),
        (
            Progress(step=3, evaluations_without_improvement=2),
            EarlyStopping(patience=2),
            "validation loss did not improve in 2 evaluations",
        ),
        (
            Progress(step=2, evaluations_without_improvement=2),
            EarlyStopping("nist-2", patience=1, monitors_metric=True),
            "nist-2 did not improve in 1 evaluation",
        ),
        (Progress(step=1, evaluations_without_improvement=1000), EarlyStopping(), None),
    ],
)
def test_a_run_is_over_by_its_steps_or_its_patience(progress, rule, reason):
    assert reason_it_is_over(progress, rule, 3) == reason
