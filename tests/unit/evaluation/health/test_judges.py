"""Signs of health as functions of numbers: each on both sides of its limit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from convo_cli.data.held_out.training_facts import TrainingFacts
from convo_cli.evaluation.health.judges import MOVED, findings_of
from convo_cli.evaluation.health.reply_probes import Probes
from convo_cli.evaluation.health.signs import RunSoFar, Vitals
from convo_cli.events import EvaluationDone
from tests.run_events import sample

SCORES = EvaluationDone(
    step=100,
    loss=3.5,
    perplexity=33.1,
    num_targets=1000,
    seconds=1.0,
    metrics={"echo": 0.05, "repetition": 0.02, "stop-rate": 1.0},
    real_scores={"echo": 0.03, "repetition": 0.0},
    samples=(sample("fine"),) * 8,
    end_nll=0.2,
    inner_nll=3.8,
)
PROBES = Probes(
    own_nll=3.8,
    other_nll=4.0,
    history_error=0.05,
    first_nll=4.0,
    echo_nll=4.5,
    echo_error=0.3,
    num_replies=40,
)
FACTS = TrainingFacts(num_dialogues=100, num_replies=300)
SO_FAR = RunSoFar(
    step=100,
    training_loss=3.4,
    frequency_loss=5.5,
    sum_of_rates=MOVED,
    training_facts=FACTS,
    validation_facts=FACTS,
)
START = replace(SCORES, step=0, loss=4.5, end_nll=9.0, inner_nll=4.2)


def kinds(scores=None, probes=None, so_far=SO_FAR, **run):
    vitals = Vitals(
        replace(SCORES, **(scores or {})),
        replace(PROBES, **(probes or {})),
    )
    so_far = replace(so_far, **run) if so_far else None
    return [finding.kind for finding in findings_of(vitals, so_far)]


def test_a_healthy_evaluation_has_no_finding():
    assert kinds() == []
    assert kinds(so_far=None) == []


@pytest.mark.parametrize(
    ("found", "changes"),
    [
        (["end-token"], {"scores": {"end_nll": 4.4}}),
        ([], {"scores": {"end_nll": 4.2}}),
        (["end-token"], {"scores": {"end_nll": None}}),
        ([], {"scores": {"end_nll": None, "inner_nll": None}}),
        (["end-token"], {"scores": {"end_nll": 8.9}, "start": START}),
        (["end-token"], {"start": replace(START, end_nll=0.05), "scores": {"end_nll": 0.3}}),
        ([], {"start": replace(START, end_nll=0.15), "scores": {"end_nll": 0.3}}),
        ([], {"start": replace(START, end_nll=0.05, inner_nll=3.9), "scores": {"end_nll": 0.3}}),
        ([], {"scores": {"end_nll": 8.0}, "start": START}),
        ([], {"scores": {"end_nll": 8.9, "inner_nll": 4.1}, "start": START}),
        (["loss"], {"scores": {"loss": 5.0}}),
        ([], {"scores": {"loss": 4.9}}),
        ([], {"scores": {"loss": 6.0}, "sum_of_rates": 0.99}),
        (["loss"], {"scores": {"loss": 4.8}, "start": START, "training_loss": 4.6}),
        ([], {"scores": {"loss": 4.8}, "start": START, "training_loss": 2.0}),
        ([], {"scores": {"loss": 4.6}, "start": START, "training_loss": 4.6}),
        (["echo"], {"probes": {"echo_nll": 2.3}}),
        ([], {"probes": {"echo_nll": 2.5}}),
        (["echo"], {"scores": {"metrics": {"echo": 0.6}}}),
        ([], {"scores": {"metrics": {"echo": 0.6}, "samples": SCORES.samples[:7]}}),
        ([], {"scores": {"metrics": {"echo": 0.6}, "loss": 4.5}}),
        (["echo"], {"training_facts": replace(FACTS, num_copies=151)}),
        (["repetition"], {"scores": {"metrics": {"repetition": 0.7}}}),
        ([], {"scores": {"metrics": {"repetition": 0.7}, "loss": 4.5}}),
        ([], {"scores": {"metrics": {"repetition": 0.7}, "end_nll": 4.0}}),
        (["history"], {"probes": {"other_nll": 3.805}}),
        ([], {"probes": {"other_nll": 3.81}}),
        ([], {"probes": {"other_nll": 3.805}, "scores": {"loss": 3.9}}),
        (["roles"], {"training_facts": replace(FACTS, num_opened_by_assistant=26)}),
        ([], {"training_facts": replace(FACTS, num_opened_by_assistant=25)}),
        ([], {"validation_facts": TrainingFacts()}),
    ],
)
def test_each_sign_has_its_limit(found, changes):
    assert kinds(**changes) == found


def test_step_0_is_not_judged():
    broken = {"end_nll": 9.0, "loss": 6.0}
    assert kinds(broken) == ["end-token", "loss"]
    assert kinds(broken, step=0) == []


def test_a_finished_model_is_judged_by_what_it_alone_shows():
    metrics = {"echo": 0.9, "repetition": 0.9}
    found = kinds({"loss": 6.0, "metrics": metrics}, {"other_nll": 3.8}, so_far=None)
    assert found == ["echo", "repetition", "history"]
    assert kinds({"end_nll": 9.0}, so_far=None) == ["end-token"]


FINISHED = RunSoFar(step=None, frequency_loss=5.5, training_facts=FACTS)


@pytest.mark.parametrize(
    ("stop_rate", "num_replies", "found"),
    [(0.0, 8, ["end-token"]), (0.1, 8, ["end-token"]), (0.2, 8, []), (0.0, 7, []), (None, 0, [])],
)
def test_a_model_on_foreign_data_does_not_end_its_replies_only_if_they_do_not_end(
    stop_rate, num_replies, found
):
    """A chat model that writes longer replies than the data has is not broken."""
    metrics = {} if stop_rate is None else {"echo": 0.05, "repetition": 0.02}
    if stop_rate is not None:
        metrics["stop-rate"] = stop_rate
    unlikely = {"end_nll": 9.0, "metrics": metrics, "samples": (sample("so"),) * num_replies}
    assert kinds(unlikely, so_far=FINISHED) == found


def test_a_finished_model_is_judged_by_replies_history_and_training_data():
    metrics = {"echo": 0.05, "repetition": 0.9, "stop-rate": 1.0}
    assert kinds({"metrics": metrics}, so_far=FINISHED) == ["repetition"]
    assert kinds({"metrics": metrics, "loss": 4.6}, so_far=FINISHED) == []  # little more than words
    assert kinds(probes={"other_nll": 3.8}, so_far=FINISHED) == ["history"]
    assert kinds(probes={"first_nll": 9.0}) == ["echo"]
    assert kinds(probes={"first_nll": 9.0}, so_far=FINISHED) == []  # real replies are foreign to it
    assert kinds({"metrics": {**metrics, "echo": 0.9, "repetition": 0}}, so_far=FINISHED) == [
        "echo"
    ]
    copies = replace(FACTS, num_copies=200)
    assert kinds(so_far=replace(FINISHED, training_facts=copies)) == ["echo"]


def test_a_message_names_both_values_and_what_to_do():
    (finding,) = findings_of(Vitals(replace(SCORES, end_nll=8.26)), SO_FAR)
    assert finding.message == (
        "the model does not end its replies: the token that ends the real ones has an nll of 8.26 "
        "(other targets have 3.80), and 100% of the replies stop by themselves. The end token is "
        "probably not trained on: check the targets with `convo validate-data --config CONFIG "
        "--show-tokens 3`"
    )
