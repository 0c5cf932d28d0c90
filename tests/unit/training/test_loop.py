"""The order of things in a run: evaluate, decide, save, step; and what each of them remembers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from convo_cli.events import EvaluationDone
from convo_cli.model.batches.loss import pad
from convo_cli.runs.checkpoints import Progress
from convo_cli.tokens.store import ASSISTANT_TARGET
from convo_cli.training.loop import step_seed, train, train_step
from convo_cli.training.state import EarlyStopping


def scores(step, loss, metric=None):
    return EvaluationDone(step, loss, 1.0, 1, 0.0, {} if metric is None else {"bleu-4": metric})


# The order of things


def test_a_run_saves_then_evaluates_then_saves_again_then_steps_and_ends_with_a_save(
    make_state, make_job
):
    """The second save finds its checkpoint and only points at the best."""
    seen: list[tuple[Any, ...]] = []

    def evaluate(state):
        seen.append(("evaluate", state.progress.step))
        return scores(state.progress.step, 2.0)

    job = make_job(
        is_due=lambda what, step: step in {"evaluation": (2, 3), "checkpoint": (0, 2)}[what],
        evaluate=evaluate,
        save=lambda state: seen.append(("save", state.progress.step, state.progress.best_loss)),
    )
    assert train(make_state(), job) == "all 3 steps done"
    assert seen == [
        ("save", 0, None), ("save", 2, None), ("evaluate", 2), ("save", 2, 2.0), ("save", 3, 2.0),
        ("evaluate", 3), ("save", 3, 2.0),
    ]  # fmt: skip
    assert [type(event).__name__ for event in job.events] == [
        "StepDone",
        "StepDone",
        "EvaluationDone",
        "StepDone",
        "EvaluationDone",
    ]
    assert [event.best for event in job.events if isinstance(event, EvaluationDone)] == [
        ("loss",),
        (),
    ]


def test_an_evaluation_that_raises_comes_after_the_save_and_changes_no_progress(
    make_state, make_job
):
    saved, state = [], make_state()
    job = make_job(
        is_due=lambda what, step: what == "evaluation" and step == 2,
        evaluate=lambda state: 1 // 0,
        save=lambda state: saved.append(state.progress.model_copy()),
    )
    with pytest.raises(ZeroDivisionError):
        train(state, job)
    assert [progress.step for progress in saved] == [2]
    assert saved == [state.progress]


def test_each_step_is_reported_with_its_number_rate_and_counts(make_state, make_job):
    state, job = make_state(), make_job(learning_rate=lambda step: 0.1 / (step + 1))
    train(state, job)
    (batch,), events = job.batches(0), job.events
    assert [event.step for event in events] == [1, 2, 3]
    assert [event.learning_rate for event in events] == [0.1, 0.05, 0.1 / 3]
    assert [event.tokens_seen for event in events] == [
        batch.num_tokens * step for step in (1, 2, 3)
    ]
    assert {event.num_targets for event in events} == {batch.num_targets}
    assert all(event.max_steps == 3 and event.seconds > 0 for event in events)
    assert events[0].loss > events[-1].loss
    assert (state.progress.step, state.progress.tokens_seen) == (3, 3 * batch.num_tokens)
    assert state.progress.elapsed_seconds == pytest.approx(sum(event.seconds for event in events))


def test_scores_belong_to_the_weights_they_were_measured_on(make_state, make_job):
    state = make_state()
    train(
        state, make_job(is_due=lambda what, step: step == 1, evaluate=lambda state: scores(1, 2.0))
    )
    assert not state.is_evaluated
    assert state.progress.best_loss == 2.0


def test_weights_that_have_their_scores_are_not_evaluated_again(make_state, make_job):
    state = make_state()
    state.progress, state.is_evaluated = Progress(step=3), True
    job = make_job(
        is_due=lambda what, step: True, evaluate=lambda state: pytest.fail("evaluated again")
    )
    assert train(state, job) == "all 3 steps done"


def test_a_stop_request_saves_once_at_the_next_boundary_and_ends(make_state, make_job):
    saved, state = [], make_state()
    job = make_job(
        is_stopped=lambda: state.progress.step == 2,
        save=lambda state: saved.append(state.progress.step),
    )
    assert train(state, job) == "stopped on request"
    assert saved == [2]
    assert state.progress.step == 2


@pytest.mark.parametrize("is_begun", [False, True], ids=["before it", "while it goes on"])
def test_a_stop_request_at_an_evaluation_saves_weights_without_scores_and_reports_nothing(
    make_state, make_job, is_begun
):
    saved, state = [], make_state()
    state.progress = Progress(step=2, evaluations_without_improvement=1, best_loss=3.0)
    job = make_job(
        is_due=lambda what, step: True,
        evaluate=(lambda state: None) if is_begun else (lambda state: pytest.fail("evaluated")),
        is_stopped=lambda: not is_begun,
        save=lambda state: saved.append(state.progress.model_copy()),
    )
    assert train(state, job) == "stopped on request"
    assert saved == [Progress(step=2, evaluations_without_improvement=1, best_loss=3.0)]
    assert job.events == []


@pytest.mark.parametrize(
    ("progress", "reason"),
    [
        (Progress(step=2), None),
        (Progress(step=3), "all 3 steps done"),
        (
            Progress(step=2, evaluations_without_improvement=2),
            "validation loss did not improve in 2 evaluations",
        ),
    ],
)
def test_a_request_is_the_reason_only_where_nothing_else_has_ended_the_run(
    make_state, make_job, progress, reason
):
    state = make_state()
    state.progress = progress
    job = make_job(is_stopped=lambda: True, early_stopping=EarlyStopping(patience=2))
    assert train(state, job) == (reason or "stopped on request")


# One step


def test_a_step_is_a_function_of_its_number_and_the_weights(make_state, make_job):
    """Dropout is on, and earlier use of the random generator does not matter."""
    outcomes, weights = [], []
    for noise in (1, 2):
        state = make_state()
        state.progress = Progress(step=1)
        torch.manual_seed(noise)
        outcomes.append(replace(train_step(state, make_job()), seconds=0.0))
        weights.append(state.model.lm_head.weight.detach().clone())
    assert outcomes[0] == outcomes[1]
    assert torch.equal(*weights)


def test_a_step_that_fp16_repeats_has_its_own_dropout_again(make_state, make_job):
    """The first gradient overflows; the repeated step has the loss of one that never did."""
    straight, repeated, calls = make_state(), make_state(is_scaled=True), []

    def overflow_once(gradient):
        calls.append(gradient)
        return gradient * (math.inf if len(calls) == 1 else 1.0)

    repeated.model.transformer.ln_f.bias.register_hook(overflow_once)
    losses = [train_step(state, make_job()).loss for state in (straight, repeated)]
    assert len(calls) == 2
    assert losses[0] == losses[1]


def test_steps_and_seeds_have_dropout_of_their_own(make_state, make_job):
    losses = set()
    for seed, step in ((0, 0), (0, 1), (1, 0)):
        state = make_state()
        state.progress = Progress(step=step)
        losses.add(train_step(state, make_job(seed=seed)).loss)
    assert len(losses) == 3


def test_seeds_of_steps_are_valid_and_apart():
    seeds = [step_seed(seed, step) for seed in (0, 1, 2**63 - 1) for step in range(100)]
    assert len(set(seeds)) == 300
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_step_without_a_target_has_no_loss_and_is_no_error(
    make_state, make_job, encoder, sample_dialogues
):
    examples = [window for windows in encoder.encode(sample_dialogues[:1]) for window in windows]
    outcome = train_step(
        make_state(), make_job(batches=lambda step: [pad(examples, (), encoder.pad_id)])
    )
    assert (outcome.loss, outcome.grad_norm, outcome.num_targets) == (0.0, 0.0, 0)


def test_gradients_are_clipped_to_the_norm_and_not_without_one(
    make_state, make_job, encoder, sample_dialogues
):
    norms = {}
    for limit in (1e-3, None):
        state = make_state(weight_decay=0.0)
        outcome = train_step(state, make_job(max_grad_norm=limit))
        left = torch.stack([parameter.grad.norm() for parameter in state.model.parameters()]).norm()
        norms[limit] = (outcome.grad_norm, float(left))
    assert norms[1e-3][0] == norms[None][0] == pytest.approx(norms[None][1], rel=1e-5)
    assert norms[1e-3][1] == pytest.approx(1e-3, rel=1e-2)


def test_the_model_is_in_training_mode_in_a_step_whatever_the_evaluation_left(make_state, make_job):
    state = make_state()
    state.model.eval()
    train_step(state, make_job())
    assert state.model.training


def test_the_learning_rate_of_the_job_reaches_every_group(make_state, make_job):
    state = make_state()
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    train_step(state, make_job(learning_rate=lambda step: 0.0))
    assert all(torch.equal(before[name], value) for name, value in state.model.state_dict().items())
    assert {group["lr"] for group in state.optimizer.param_groups} == {0.0}


def test_targets_of_all_micro_batches_weigh_the_same(
    make_state, make_job, encoder, sample_dialogues
):
    """The loss of a step is that of all its examples in one batch, even if targets are uneven."""
    examples = sorted(
        (window for windows in encoder.encode(sample_dialogues[:6]) for window in windows),
        key=lambda example: len(example.input_ids),
    )
    cut = [examples[:1], examples[1:]]
    losses = []
    for parts in ([examples], cut):
        state = make_state()
        state.model.transformer.drop.p = 0.0
        for module in state.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        batches = [pad(part, {ASSISTANT_TARGET}, encoder.pad_id) for part in parts]
        losses.append(
            train_step(state, make_job(batches=lambda step, batches=batches: batches)).loss
        )
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
