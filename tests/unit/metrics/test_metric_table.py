"""The table of metrics is the one place of a metric: everything else reads it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import get_args

import pytest

from convo_cli.config.schema import MetricName
from convo_cli.metrics.metric_table import METRICS, brief, goodness, written

ADDED = """
import dataclasses, io, json
from convo_cli.metrics import metric_table
from convo_cli.metrics.metric_table import Metric

def num_words(texts):
    import numpy as np
    from convo_cli.metrics.reply_texts import Additive
    rows = np.array([[float(len(words))] for words in texts.reply_words])
    return Additive(rows, lambda sums: sums[..., 0])

metric_table.METRICS = {
    **metric_table.METRICS,
    "num-words": Metric(False, None, "words of all replies", "convo:words", num_words, True),
}

from rich.console import Console
from types import SimpleNamespace
from convo_cli.cli.views.evaluation.score_tables import reply_table
from convo_cli.cli.views.progress.event_lines import score_line
from convo_cli.config.reference import config_reference, json_schema
from convo_cli.config.schema import EvaluationConfig
from convo_cli.events import EvaluationDone, SampleReply
from convo_cli.metrics.intervals import intervals_of
from convo_cli.metrics.reply_scores import measure, score_replies
from convo_cli.runs.logs.evaluations import best_scores, evaluation_of, evaluation_record

def replies(*texts):
    return [SampleReply((("user", "Hi!"),), "Hello there.", text, True) for text in texts]

evaluations = [
    EvaluationDone(step, 2.0, 7.4, 9, 0.1, score_replies(replies(*texts)))
    for step, texts in enumerate((["a b c", "d"], ["a", "b"], ["a b", "c d"]))
]
page = io.StringIO()
models = [SimpleNamespace(result=one) for one in evaluations[:2]]
Console(file=page, width=200).print(reply_table(["A", "B"], models))
print(json.dumps({
    "config": EvaluationConfig(metric="num-words").metric,
    "schema": json_schema()["$defs"]["EvaluationConfig"]["properties"]["metric"]["enum"],
    "reference": "num-words" in config_reference(),
    "values": [one.metrics["num-words"] for one in evaluations],
    "interval": intervals_of(measure(replies("a b", "c d")))["num-words"],
    "logged": evaluation_of(evaluation_record(evaluations[0])).metrics["num-words"],
    "line": score_line(evaluations[1], ()),
    "best": [dataclasses.asdict(score) for score in best_scores(evaluations, "num-words")],
    "table": page.getvalue(),
}))
"""


def test_an_added_metric_is_in_config_schema_scores_log_choice_and_view():
    done = subprocess.run([sys.executable, "-c", ADDED], capture_output=True, text=True, check=True)
    seen = json.loads(done.stdout)
    assert seen["config"] == "num-words"
    assert seen["schema"] == [*METRICS, "num-words"]
    assert seen["reference"]
    assert seen["values"] == [4.0, 2.0, 4.0]
    assert seen["interval"] == [4.0, 4.0]
    assert seen["logged"] == 4.0
    assert "num-words 2.00" in seen["line"]
    assert seen["best"][1] == {"name": "num-words", "value": 2.0, "step": 1}
    (row,) = [line for line in seen["table"].splitlines() if "num-words" in line]
    assert "4" in row
    assert "2" in row


def test_the_config_takes_every_metric():
    assert tuple(METRICS) == get_args(MetricName)


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_has_a_meaning_a_signature_and_a_direction(name):
    metric = METRICS[name]
    assert metric.meaning
    assert ":" in metric.signature
    assert metric.direction in (
        "higher is better",
        "lower is better",
        "best at the value of the real replies",
    )


def test_goodness_rises_in_the_direction_of_the_metric():
    assert goodness("bleu-4", 2.0, {}) > goodness("bleu-4", 1.0, {})
    assert goodness("loss", 1.0, {}) > goodness("loss", 2.0, {})
    real = {"repetition": 0.1}
    assert goodness("repetition", 0.1, real) > goodness("repetition", 0.0, real)
    assert goodness("repetition", 0.0, real) > goodness("repetition", 0.3, real)
    assert goodness("repetition", 0.3, {}) is None
    assert goodness("of another version", 2.0, {}) > goodness("of another version", 1.0, {})


def test_a_line_of_a_log_has_the_chosen_metric_and_those_of_other_versions():
    metrics = {"bleu-3": 1.0, "chrf": 2.0, "bleu-4": 3.0, "new": 4.0}
    assert brief(metrics, "chrf") == {"chrf": 2.0, "bleu-4": 3.0, "new": 4.0}


def test_scores_up_to_1_are_written_with_three_decimals():
    assert [written(name, 0.12345) for name in ("f1", "loss", "bleu-4", "length-ratio")] == [
        "0.123",
        "0.123",
        "0.12",
        "0.12",
    ]
