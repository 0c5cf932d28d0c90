"""Scores while training, and when the run stops early."""

from __future__ import annotations

import pytest

from convo_cli.metrics.metric_table import METRICS
from tests.docs.effects.entry import effect
from tests.docs.effects.workshop import STEPS, VALIDATION

REPLIES = {**VALIDATION, "evaluation.reply_dialogues": 2}
EVERY_STEP = {**VALIDATION, "evaluation.every_steps": 1}
MEMORISED = {
    **REPLIES,
    "data.train": ["echo.jsonl"],
    "data.validation": ["echo.jsonl"],
    "training.max_steps": 40,
    "training.learning_rate": 1e-2,
    "evaluation.every_steps": 40,
    "generation.max_new_tokens": 32,
}


@effect(
    "evaluation.every_steps", None, 3, seen_in="evaluations in metrics.jsonl",
    given={**VALIDATION, "training.batch_size": 13},
)  # fmt: skip
def _(null, three):
    """The run is evaluated at every multiple of this step; null: once an epoch."""
    assert null.evaluated == [2, 4, 6]
    assert three.evaluated == [3, 6]


@effect(
    "evaluation.max_dialogues",
    None,
    5,
    seen_in="dialogues and targets in metrics.jsonl",
    given=VALIDATION,
)
def _(every, five):
    """The validation loss covers only this number of dialogues."""
    assert [run.started["validation"]["num_dialogues"] for run in (every, five)] == [25, 5]
    targets = [run.events("evaluation")[0]["num_targets"] for run in (every, five)]
    assert targets[1] < targets[0] / 2


@effect(
    "evaluation.reply_dialogues",
    0,
    2,
    seen_in="samples.jsonl, scores in metrics.jsonl",
    given=VALIDATION,
)
def _(none, two):
    """Each evaluation replies to this number of dialogues and scores the replies."""
    assert none.samples == []
    assert [sample["step"] for sample in two.samples] == [3, 3, 6, 6]
    assert [set(run.events("evaluation")[0]["metrics"]) for run in (none, two)] == [
        set(),
        set(METRICS),
    ]


@effect("evaluation.show_samples", 0, 1, seen_in="replies on stderr, samples.jsonl", given=REPLIES)
def _(none, one):
    """The log shows this number of replies of each evaluation; samples.jsonl has all."""
    assert [len(run.shown("  reply ")) for run in (none, one)] == [0, 2]
    assert len(none.samples) == len(one.samples) == 4


@effect("evaluation.metric", "bleu-2", "nist-2", seen_in="the result on stdout", given=MEMORISED)
def _(bleu, nist):
    """This score decides which checkpoint is the best by metric."""
    scores = bleu.events("evaluation")[-1]["metrics"]
    assert scores["bleu-2"] > scores["nist-2"] > 0
    for run, name in ((bleu, "bleu-2"), (nist, "nist-2")):
        assert run.answer["best_metric"] == pytest.approx(scores[name])


@effect(
    "evaluation.early_stopping.patience", None, 1, 2,
    seen_in="steps in metrics.jsonl, the reason on stdout",
    given={**EVERY_STEP, "evaluation.early_stopping.min_delta": 10.0},
)  # fmt: skip
def _(never, one, two):
    """The run ends after this number of evaluations without improvement."""
    assert [len(run.steps) for run in (never, one, two)] == [STEPS, 2, 3]
    assert two.answer["reason"] == "validation loss did not improve in 2 evaluations"


@effect(
    "evaluation.early_stopping.monitor", "loss", "metric", seen_in="the reason on stdout",
    given={
        **EVERY_STEP,
        "evaluation.reply_dialogues": 2,
        "evaluation.early_stopping.patience": 1,
        "evaluation.early_stopping.min_delta": 1000.0,
    },
)  # fmt: skip
def _(loss, metric):
    """This score has to improve, or the run ends."""
    assert loss.answer["reason"] == "validation loss did not improve in 1 evaluation"
    assert metric.answer["reason"] == "bleu-4 did not improve in 1 evaluation"


@effect(
    "evaluation.early_stopping.min_delta", 0.0, 10.0,
    seen_in="steps and validation losses in metrics.jsonl",
    given={**EVERY_STEP, "evaluation.early_stopping.patience": 1},
)  # fmt: skip
def _(any_change, large):
    """A smaller change of the score is no improvement."""
    losses = [record["loss"] for record in any_change.events("evaluation")]
    assert losses == sorted(losses, reverse=True)
    assert [len(run.steps) for run in (any_change, large)] == [STEPS, 2]
