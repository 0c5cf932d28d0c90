"""AdamW decays matrices only and updates every parameter once; the learning rate of every step."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from convo_cli.config.schema import TrainingConfig
from convo_cli.training.optim import (
    has_user_targets,
    learning_rate_at,
    make_optimizer,
    schedule_corners,
)

CONFIG = TrainingConfig(max_steps=1, weight_decay=0.25, betas=(0.8, 0.99), epsilon=1e-6)


def gpt2(*, is_tied=True):
    from transformers import GPT2Config, GPT2LMHeadModel

    size: dict[str, Any] = {
        "vocab_size": 40,
        "n_positions": 16,
        "n_embd": 8,
        "n_layer": 2,
        "n_head": 2,
    }
    return GPT2LMHeadModel(GPT2Config(**size, tie_word_embeddings=is_tied))


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=40, hidden_size=8, intermediate_size=16, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=16,
            attention_bias=True,
        )
    )  # fmt: skip


def groups_by_name(model):
    """The names of the parameters that are decayed, and of those that are not."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, kept = make_optimizer(model, CONFIG).param_groups
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.25, 0.0)
    return [names[id(p)] for p in decayed["params"]], [names[id(p)] for p in kept["params"]]


@pytest.mark.parametrize(
    "make", [gpt2, lambda: gpt2(is_tied=False), llama], ids=["gpt2", "untied gpt2", "llama"]
)
def test_every_parameter_is_in_exactly_one_group(make):
    model = make()
    decayed, kept = groups_by_name(model)
    assert sorted(decayed + kept) == sorted(name for name, _ in model.named_parameters())


def test_matrices_are_decayed_and_norms_biases_and_embeddings_are_not():
    decayed, kept = groups_by_name(gpt2())
    assert all(
        name.endswith("weight") and (".attn." in name or ".mlp." in name) for name in decayed
    )
    assert len(decayed) == 2 * 4
    assert {"transformer.wte.weight", "transformer.wpe.weight", "transformer.ln_f.weight"} <= set(
        kept
    )
    assert all(
        "wte" in name or "wpe" in name or "ln_" in name or name.endswith("bias") for name in kept
    )


def test_an_output_matrix_of_its_own_is_decayed_and_one_tied_to_the_embedding_is_not():
    assert "lm_head.weight" in groups_by_name(gpt2(is_tied=False))[0]
    assert not any("lm_head" in name for group in groups_by_name(gpt2()) for name in group)


def test_frozen_parameters_are_left_out():
    model = gpt2()
    model.transformer.wte.weight.requires_grad_(False)
    decayed, kept = groups_by_name(model)
    assert "transformer.wte.weight" not in decayed + kept


def test_the_configs_numbers_reach_the_optimizer():
    for group in make_optimizer(gpt2(), CONFIG).param_groups:
        assert (group["betas"], group["eps"]) == ((0.8, 0.99), 1e-6)
        assert group["lr"] == 0.0, "the loop sets the rate of each step"


def test_decay_shrinks_a_matrix_without_a_gradient_and_leaves_a_norm():
    model = gpt2()
    optimizer = make_optimizer(model, CONFIG)
    for group in optimizer.param_groups:
        group["lr"] = 1e-3
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    block = model.transformer.h[0]
    matrix, norm = block.mlp.c_fc.weight.detach().clone(), block.ln_1.weight.detach().clone()
    optimizer.step()
    torch.testing.assert_close(block.mlp.c_fc.weight.detach(), matrix * (1 - 1e-3 * 0.25))
    assert torch.equal(block.ln_1.weight, norm)


# The schedule

SCHEDULES = ["constant", "linear", "cosine"]


def rates(schedule, max_steps, extra=0, **training):
    config = TrainingConfig(schedule=schedule, max_steps=max_steps, learning_rate=2.0, **training)
    return [learning_rate_at(step, config, max_steps) for step in range(max_steps + extra)]


def test_warm_up_climbs_in_equal_parts_and_its_last_step_has_the_peak():
    assert rates("linear", 9, warmup_steps=4)[:4] == [0.5, 1.0, 1.5, 2.0]


def test_linear_falls_in_equal_parts_to_the_floor_at_the_last_step():
    assert rates("linear", 7, warmup_steps=2, min_lr_ratio=0.0)[2:] == [2.0, 1.5, 1.0, 0.5, 0.0]


def test_cosine_is_half_way_in_the_middle_and_at_the_floor_at_the_last_step():
    middle = rates("cosine", 5)
    assert middle[0] == 2.0
    assert math.isclose(middle[2], 2.0 * 0.55)
    assert math.isclose(middle[4], 0.2)
    assert middle[0] - middle[1] < middle[1] - middle[2], "slow at first"


def test_constant_stays_at_the_peak_and_has_no_floor():
    assert rates("constant", 6, warmup_steps=2) == [1.0, 2.0, 2.0, 2.0, 2.0, 2.0]


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_after_its_horizon_the_rate_stays_at_the_floor(schedule):
    assert all(math.isclose(rate, 0.2) for rate in rates(schedule, 5, extra=20)[4:])
    assert rates(schedule, 25, schedule_steps=5) == rates(schedule, 5, extra=20)


def test_a_run_shorter_than_its_schedule_follows_the_beginning_of_it():
    assert (
        rates("cosine", 3, schedule_steps=9, warmup_steps=2)
        == rates("cosine", 9, warmup_steps=2)[:3]
    )


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup_steps", [4, 5, 10_000])
def test_a_warm_up_as_long_as_the_run_or_longer_ends_with_it_at_the_peak(schedule, warmup_steps):
    assert rates(schedule, 4, warmup_steps=warmup_steps) == [0.5, 1.0, 1.5, 2.0]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_without_warm_up_the_first_step_has_the_peak(schedule):
    assert rates(schedule, 4)[0] == 2.0


@given(
    schedule=st.sampled_from(SCHEDULES),
    max_steps=st.integers(1, 300),
    horizon=st.none() | st.integers(1, 300),
    warmup=st.integers(0, 400),
    floor=st.floats(0, 1),
)
def test_it_rises_to_the_peak_once_then_falls_and_stays_between_floor_and_peak(
    schedule, max_steps, horizon, warmup, floor
):
    values = rates(
        schedule, max_steps, 3, warmup_steps=warmup, schedule_steps=horizon, min_lr_ratio=floor
    )
    warmup = min(warmup, horizon or max_steps)
    rising, falling = values[:warmup], values[warmup:]
    assert rising == sorted(rising)
    assert all(math.isclose(rate, 2.0 * (step + 1) / warmup) for step, rate in enumerate(rising))
    assert falling == sorted(falling, reverse=True)
    assert all(2.0 * floor - 1e-12 <= rate <= 2.0 + 1e-12 for rate in falling)


@given(
    schedule=st.sampled_from(["constant", "linear"]),
    max_steps=st.integers(1, 300),
    horizon=st.none() | st.integers(1, 300),
    warmup=st.integers(0, 400),
    floor=st.floats(0, 1),
)
def test_between_its_corners_the_rate_is_a_straight_line(
    schedule, max_steps, horizon, warmup, floor
):
    training = {"warmup_steps": warmup, "schedule_steps": horizon, "min_lr_ratio": floor}
    values = rates(schedule, max_steps, **training)
    bends = schedule_corners(
        TrainingConfig(schedule=schedule, max_steps=max_steps, **training), max_steps
    )
    for step in range(1, max_steps - 1):
        if step not in bends:
            assert math.isclose(
                values[step], (values[step - 1] + values[step + 1]) / 2, abs_tol=1e-12
            )


@pytest.mark.parametrize(("fraction", "targets"), [(0.0, 0), (0.5, 5), (0.55, 6), (1.0, 14)])
def test_the_curriculum_counts_in_steps_of_the_schedule_and_1_is_always(fraction, targets):
    assert sum(has_user_targets(step, fraction, horizon=10) for step in range(14)) == targets
