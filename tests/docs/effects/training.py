"""Steps, batches, learning rate, optimizer, arithmetic."""

from __future__ import annotations

import math

import pytest
import torch

from tests.docs.effects.entry import effect
from tests.docs.effects.observed import gap, norm
from tests.docs.effects.workshop import BATCH, ONE_STEP, PEAK, STEPS

LAYERS = 2
RATES = "learning rates in metrics.jsonl"
FIRST_UPDATE = {**ONE_STEP, "training.weight_decay": 0.0, "training.max_grad_norm": None}


@effect("training.max_steps", 3, 5, seen_in="steps in metrics.jsonl")
def _(three, five):
    """The run has this number of steps."""
    assert [len(run.steps) for run in (three, five)] == [3, 5]


@effect(
    "training.epochs", 0.4, 1.0, seen_in="steps in metrics.jsonl",
    given={"training.max_steps": None, "training.batch_size": 5},
)  # fmt: skip
def _(part, whole):
    """The run has the steps that this number of passes over the 25 dialogues needs."""
    assert [len(run.steps) for run in (part, whole)] == [2, 5]


@effect("training.batch_size", 4, 5, seen_in="epochs in metrics.jsonl")
def _(four, five):
    """A step takes this number of dialogues."""
    assert [run.steps[0]["epoch"] * 25 for run in (four, five)] == pytest.approx([4, 5])


@effect(
    "training.batch_tokens",
    128,
    512,
    seen_in="tokens of each step",
    given={"training.batch_size": None},
)
def _(few, many):
    """A step takes about this number of tokens."""
    for run, budget in ((few, 128), (many, 512)):
        assert sum(step["num_tokens"] for step in run.steps) == pytest.approx(
            budget * STEPS, abs=128
        )


@effect(
    "training.micro_batch_size",
    None,
    2,
    "auto",
    seen_in="forward passes, the notice, weights of the last checkpoint",
)
def _(whole, cut, auto):
    """A step is cut into passes of this number of dialogues; auto: as many as fit in memory.

    Weights change only by rounding.
    """
    assert [len(run.passes.rows) // LAYERS for run in (whole, cut)] == [STEPS, STEPS * BATCH // 2]
    assert "micro-batches: all examples of a step (a pass needs up to " in auto.result.err
    assert gap(whole.weights(STEPS), cut.weights(STEPS)) < 1e-4
    assert gap(whole.weights(STEPS), auto.weights(STEPS)) == 0


@effect(
    "training.packing", "auto", "off", seen_in="rows of the forward passes, the notice, weights"
)
def _(packed, padded):
    """Dialogues are packed into one row; off: into padded rows, with the same weights."""
    assert set(packed.passes.rows) == {1}
    assert max(padded.passes.rows) > 1
    assert "padded to the longest one in their batch, because training.packing is off" in (
        padded.result.err
    )
    assert gap(packed.weights(STEPS), padded.weights(STEPS)) < 1e-4


@effect("training.learning_rate", 1e-3, 1e-2, seen_in=f"{RATES}, the first update", given=ONE_STEP)
def _(low, high):
    """Steps at the peak have this rate, and AdamW's first update moves a weight by as much."""
    for run, rate in ((low, 1e-3), (high, 1e-2)):
        assert run.rates == [rate]
        assert max(float(change.abs().max()) for change in run.update().values()) == pytest.approx(
            rate, rel=0.05
        )


@effect("training.schedule", "constant", "linear", "cosine", seen_in=RATES)
def _(constant, linear, cosine):
    """The rate stays at its peak, falls in equal steps, or falls along a half cosine."""
    shares = [k / (STEPS - 1) for k in range(STEPS)]
    assert constant.rates == [PEAK] * STEPS
    assert linear.rates == pytest.approx([PEAK * (1 - 0.9 * share) for share in shares])
    assert cosine.rates == pytest.approx(
        [PEAK * (0.1 + 0.45 * (1 + math.cos(math.pi * share))) for share in shares]
    )


@effect("training.schedule_steps", None, 3, seen_in=RATES)
def _(whole, three):
    """The rate reaches its floor at this step and stays there; null: at the last step."""
    assert [rate == pytest.approx(0.1 * PEAK) for rate in whole.rates] == [False] * (STEPS - 1) + [
        True
    ]
    assert [rate == pytest.approx(0.1 * PEAK) for rate in three.rates] == [False] * 2 + [True] * (
        STEPS - 2
    )


@effect("training.warmup_steps", 0, 4, seen_in=RATES)
def _(without, warmed):
    """The rate climbs to its peak in this number of equal steps."""
    assert without.rates[0] == pytest.approx(PEAK)
    assert warmed.rates[:4] == pytest.approx([PEAK / 4, PEAK / 2, PEAK * 3 / 4, PEAK])


@effect("training.min_lr_ratio", 0.0, 0.5, seen_in=RATES)
def _(none, half):
    """The last step has this fraction of the peak rate."""
    assert [none.rates[-1], half.rates[-1]] == pytest.approx([0.0, PEAK / 2])


@effect(
    "training.weight_decay", 0.0, 0.5, seen_in="the first update of each weight", given=ONE_STEP
)
def _(without, decayed):
    """An update shrinks all matrices but embeddings by the rate times this fraction."""
    before, plain, shrunk = without.weights(0), without.weights(1), decayed.weights(1)
    for name, weight in before.items():
        is_matrix = weight.ndim == 2 and "wte" not in name and "wpe" not in name
        expected = plain[name] - PEAK * 0.5 * weight if is_matrix else plain[name]
        assert torch.allclose(shrunk[name], expected, rtol=0, atol=1e-7), name


@effect(
    "training.betas",
    [0.9, 0.95],
    [0.5, 0.6],
    seen_in="the optimizer's averages after step 1",
    given=ONE_STEP,
)
def _(slow, fast):
    """After the first step the averages are (1 - beta) of the gradient and of its square."""
    for kind, ratio in (("exp_avg", 0.5 / 0.1), ("exp_avg_sq", 0.4 / 0.05)):
        scaled = {name: tensor * ratio for name, tensor in slow.moments(kind).items()}
        assert norm(fast.moments(kind)) == pytest.approx(norm(scaled), rel=1e-4)


@effect("training.epsilon", 1e-8, 1.0, seen_in="the first update", given=FIRST_UPDATE)
def _(small, large):
    """The first update is rate x gradient / (size of the gradient + epsilon)."""
    for run, epsilon in ((small, 1e-8), (large, 1.0)):
        gradient = {name: tensor / 0.1 for name, tensor in run.moments("exp_avg").items()}
        expected = {name: -PEAK * g / (g.abs() + epsilon) for name, g in gradient.items()}
        assert gap(run.update(), expected) < PEAK / 100


@effect(
    "training.max_grad_norm",
    None,
    0.01,
    seen_in="the optimizer's averages after step 1",
    given=ONE_STEP,
)
def _(free, clipped):
    """A gradient of a larger norm is scaled down to this one."""
    sizes = [norm(run.moments("exp_avg")) / 0.1 for run in (free, clipped)]
    assert sizes == pytest.approx([free.steps[0]["grad_norm"], 0.01], rel=1e-3)


@effect(
    "training.precision",
    "fp32",
    "bf16",
    "fp16",
    seen_in="autocast in the forward passes, metrics.jsonl",
)
def _(fp32, bf16, fp16):
    """Forward passes compute in this arithmetic; the loss changes only by rounding."""
    assert [run.started["precision"] for run in (fp32, bf16, fp16)] == ["fp32", "bf16", "fp16"]
    assert [run.passes.dtypes for run in (fp32, bf16, fp16)] == [
        {None},
        {torch.bfloat16},
        {torch.float16},
    ]
    losses = [run.steps[-1]["loss"] for run in (fp32, bf16, fp16)]
    assert len(set(losses)) == 3
    assert losses == pytest.approx([losses[0]] * 3, rel=0.01)


@effect("training.device", "cpu", "cuda:99", seen_in="metrics.jsonl, the refusal")
def _(cpu, missing):
    """The model computes on this device; a missing device is refused."""
    assert cpu.started["device"] == "cpu"
    assert "device cuda:99: this machine has" in missing.result.err


@effect("training.devices", 1, 4096, seen_in="metrics.jsonl, the refusal")
def _(one, too_many):
    """Each step is shared by a process for each device; more than there are CPUs are refused."""
    assert one.started["num_processes"] == 1
    assert "cannot use 4,096 devices: convo may use" in too_many.result.err


@effect("training.sharding", "none", "full", seen_in="the notices of `convo train`")
def _(none, full):
    """Devices share the model (tests/laws/test_sharded_runs.py); one has nothing to share."""
    message = "training.sharding: full has no effect, because there is one device"
    assert message in full.result.err
    assert message not in none.result.err
    assert gap(none.weights(STEPS), full.weights(STEPS)) == 0


@effect(
    "training.gradient_checkpointing",
    False,
    True,
    seen_in="calls of the blocks, weights of the last checkpoint",
)
def _(kept, computed_again):
    """The backward pass computes each block again; the weights stay the same."""
    assert [len(run.passes.rows) for run in (kept, computed_again)] == [
        STEPS * LAYERS,
        2 * STEPS * LAYERS,
    ]
    assert gap(kept.weights(STEPS), computed_again.weights(STEPS)) < 1e-6


@effect(
    "training.compile", False, True, seen_in="calls of the function that torch.compile returned"
)
def _(plain, compiled):
    """The steps run through torch.compile."""
    assert plain.passes.num_compiled == 0
    assert compiled.passes.num_compiled == STEPS
