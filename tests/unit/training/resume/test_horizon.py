"""Another length of a run never raises its learning rate; notices and settings to continue."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convo_cli.config.schema import EarlyStoppingConfig, EvaluationConfig, TrainingConfig
from convo_cli.runs.checkpoints import Progress
from convo_cli.tokens.order import Order
from convo_cli.tokens.phase import Phase
from convo_cli.training.optim import learning_rate_at
from convo_cli.training.resume.horizon import settings_to_continue, settle_horizon

CONFIGS = st.builds(
    TrainingConfig,
    max_steps=st.just(1),
    schedule=st.sampled_from(["constant", "linear", "cosine"]),
    warmup_steps=st.integers(0, 60),
    min_lr_ratio=st.floats(0, 1),
    schedule_steps=st.none() | st.integers(1, 80),
)


@given(config=CONFIGS, lengths=st.lists(st.integers(1, 80), min_size=2, max_size=5))
def test_no_length_that_a_run_is_given_raises_the_rate_of_any_step(config, lengths):
    """Resumed any number of times, longer or shorter; an extended run follows its schedule."""
    for old, new in pairwise(lengths):
        horizon = settle_horizon(config, old, config, new, is_set=False)
        resumed = config.model_copy(update={"schedule_steps": horizon})
        before = [learning_rate_at(step, config, old) for step in range(200)]
        after = [learning_rate_at(step, resumed, new) for step in range(200)]
        if new >= old:
            assert after == before
        assert all(now <= then for now, then in zip(after, before, strict=True))
        config = resumed


@given(config=CONFIGS, old=st.integers(1, 80), new=st.integers(1, 80))
def test_what_the_user_states_is_used(config, old, new):
    assert settle_horizon(config, old, config, new, is_set=True) == (config.schedule_steps or new)


def ended(step, *, max_steps, epochs=None, batch=4, out_of_patience=False):
    """A finished run on 10 examples."""
    training = TrainingConfig(max_steps=None if epochs else max_steps, epochs=epochs)
    order = Order(np.full(10, 3), 0, [Phase(batch=batch)])
    config = SimpleNamespace(
        training=training,
        evaluation=EvaluationConfig(early_stopping=EarlyStoppingConfig(patience=2)),
    )
    progress = Progress(step=step, evaluations_without_improvement=2 * out_of_patience)
    parts: Any = SimpleNamespace(config=config, max_steps=max_steps, order=order)
    return settings_to_continue(parts, progress)


@pytest.mark.parametrize(
    ("run", "settings"),
    [
        ({"step": 6, "max_steps": 6}, ("training.max_steps=12",)),
        ({"step": 9, "max_steps": 6}, ("training.max_steps=18",)),
        ({"step": 4, "max_steps": 6}, ()),
        ({"step": 3, "max_steps": 3, "epochs": 1}, ("training.epochs=2",)),
        ({"step": 3, "max_steps": 3, "epochs": 0.1, "batch": 10}, ("training.epochs=4",)),
        ({"step": 1, "max_steps": 1, "epochs": 0.5, "batch": 5}, ("training.epochs=1",)),
        (
            {"step": 4, "max_steps": 6, "out_of_patience": True},
            ("evaluation.early_stopping.patience=null",),
        ),
        (
            {"step": 6, "max_steps": 6, "out_of_patience": True},
            ("evaluation.early_stopping.patience=null", "training.max_steps=12"),
        ),
    ],
)
def test_a_run_that_ended_needs_this_to_take_another_step(run, settings):
    assert ended(**run) == settings
