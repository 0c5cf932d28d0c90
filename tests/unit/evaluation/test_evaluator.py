"""One evaluation: repeatable, without side effects, and with finite numbers only."""

from __future__ import annotations

import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from convo_cli.config.schema import GenerationSettings, ScratchConfig
from convo_cli.data.dialogue import Dialogue, Turn
from convo_cli.errors import DivergedError
from convo_cli.evaluation import shared_replies
from convo_cli.evaluation.evaluator import Evaluator
from convo_cli.evaluation.shared_replies import EvaluationStoppedError
from convo_cli.events import Notice, Progress
from convo_cli.metrics.metric_table import METRICS
from convo_cli.model.batches.batching import Batching
from convo_cli.model.create import build_scratch_model
from tests.stores import encoded


@pytest.fixture(scope="module")
def encoder(make_encoder):
    return make_encoder()


@pytest.fixture
def model(encoder):
    size = ScratchConfig(layers=1, width=16, heads=2, context=128, dropout=0.5)
    return build_scratch_model(size, encoder, seed=0).train()


@pytest.fixture
def make_evaluator(encoder, sample_dialogues):
    def make(emit=lambda event: None, **changes):
        values = {
            "encoder": encoder,
            "batching": Batching(False, True, encoder.pad_id),
            "store": encoded(encoder, sample_dialogues[:8]),
            "dialogues": sample_dialogues[:2],
            "train_on": "assistant",
            "generation": GenerationSettings(max_new_tokens=4, temperature=2.0),
            "device": torch.device("cpu"),
            "autocast": nullcontext,
            "emit": emit,
        }
        return Evaluator(**{**values, **changes})

    return make


def test_an_evaluation_is_the_same_every_time_and_touches_no_random_state(make_evaluator, model):
    evaluator, results = make_evaluator(), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        model.train()
        result = evaluator(model, step=7)
        assert torch.equal(torch.get_rng_state(), before)
        results.append(
            (result.step, result.loss, result.num_targets, result.metrics, result.samples)
        )
    assert results[0] == results[1]
    assert results[0][0] == 7
    assert len(result.samples) == 2
    assert result.perplexity == pytest.approx(math.exp(result.loss))
    assert set(result.metrics) == set(METRICS)
    assert not model.training


def test_the_loss_of_each_file_is_that_of_its_dialogues(
    make_evaluator, model, encoder, sample_dialogues
):
    store = encoded(encoder, sample_dialogues[:8])
    assert isinstance(store.dialogues, np.ndarray)
    store.dialogues["file"] = [0, 0, 0, 2, 2, 2, 2, 2]
    whole = make_evaluator(store=store, num_files=3, dialogues=())(model, step=0)
    alone = [
        make_evaluator(store=encoded(encoder, part), dialogues=())(model, step=0)
        for part in (sample_dialogues[:3], sample_dialogues[3:8])
    ]
    first, nothing, last = whole.loss_by_file
    assert (first, last) == pytest.approx([one.loss for one in alone], rel=1e-6)
    assert nothing is None
    assert alone[0].loss_by_file == ()


def test_progress_begins_at_nothing_and_ends_at_the_whole(make_evaluator, model):
    events = []
    make_evaluator(events.append)(model, step=0)
    assert all(isinstance(event, Progress) for event in events)
    assert {event.stage for event in events if event.done == 0} == {event.stage for event in events}
    last = {event.stage: event for event in events}
    assert (last["evaluating"].done, last["evaluating"].total) == (8, 8)
    assert (last["generating replies"].done, last["generating replies"].total) == (2, 2)


def test_user_turns_count_only_where_they_are_trained(make_evaluator, model):
    counts = {
        kind: make_evaluator(train_on=kind, dialogues=[])(model, 0).num_targets
        for kind in ("assistant", "all")
    }
    assert counts["all"] > counts["assistant"] > 0


def test_without_replies_there_are_no_metrics(make_evaluator, model):
    result = make_evaluator(dialogues=[])(model, 0)
    assert (result.metrics, result.samples) == ({}, ())


def test_dialogues_longer_than_the_window_get_no_reply_and_a_warning(make_evaluator, model):
    events = []
    long = Dialogue((Turn("user", "very " * 200), Turn("assistant", "Yes.")))
    fits = Dialogue((Turn("user", "Hi"), Turn("assistant", "Yes.")))
    result = make_evaluator(events.append, dialogues=[long, fits])(model, 0)
    assert len(result.samples) == 1
    (notice,) = [event for event in events if isinstance(event, Notice)]
    assert notice.message.startswith("no score for 1 of 2 dialogues")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_an_error_not_a_score(make_evaluator, model, bad):
    with torch.no_grad():
        model.transformer.ln_f.weight[0] = bad
    with pytest.raises(
        DivergedError, match=r"the loss on the evaluation data is .* after step 5"
    ) as caught:
        make_evaluator()(model, 5)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("looks", [1, 3])
def test_a_stop_request_ends_the_likelihood_and_a_reply_at_once(
    make_evaluator, model, monkeypatch, looks
):
    """The first look is in the likelihood, later ones are between two tokens."""
    monkeypatch.setattr(shared_replies, "_SECONDS", 0.0)
    asked, events = [], []

    def is_stopped():
        asked.append(True)
        return len(asked) > looks

    evaluator = make_evaluator(events.append, is_stopped=is_stopped)
    with pytest.raises(EvaluationStoppedError):
        evaluator(model, step=0)
    assert len(asked) == looks + 1
    assert [event.done for event in events if event.stage == "generating replies"] in ([], [0])
