"""Cutting a step into micro-batches changes loss and gradient only by rounding."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from convo_cli.model.batches.loss import pad
from convo_cli.tokens.store import ASSISTANT_TARGET, Example
from convo_cli.training.loop import StepPlan, accumulate_gradients
from convo_cli.training.state import TrainState
from tests.jobs import StepsJob


def _examples(encoder, sample_dialogues):
    windows = encoder.encode(sample_dialogues[:24])
    return [window for example in windows for window in example]


def _state(encoder):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(encoder.tokenizer), n_positions=128, n_embd=32, n_layer=2, n_head=2,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        )
    )  # fmt: skip
    model = model.double()
    optimizer = torch.optim.AdamW(model.parameters())
    return TrainState(model, optimizer, torch.amp.GradScaler("cpu", enabled=False))


def _gradient(encoder, cut):
    state = _state(encoder)
    batches = [pad(part, {ASSISTANT_TARGET}, encoder.pad_id) for part in cut]
    loss, norm = accumulate_gradients(state, StepsJob(max_grad_norm=None), StepPlan.of(batches))
    return loss, norm, torch.cat([p.grad.flatten() for p in state.model.parameters()])


@pytest.mark.parametrize("size", [1, 5, 7])
def test_the_gradient_of_a_step_does_not_depend_on_the_micro_batch_size(
    make_encoder, sample_dialogues, size
):
    encoder = make_encoder()
    examples = _examples(encoder, sample_dialogues)
    loss, norm, gradient = _gradient(encoder, [examples])
    cut_loss, cut_norm, cut_gradient = _gradient(
        encoder, [examples[begin : begin + size] for begin in range(0, len(examples), size)]
    )
    assert math.isclose(loss, cut_loss, rel_tol=1e-5)
    assert math.isclose(norm, cut_norm, rel_tol=1e-5)
    assert torch.linalg.vector_norm(gradient - cut_gradient) < 1e-5 * norm


def test_the_mean_of_micro_batch_means_would_be_another_gradient(make_encoder, sample_dialogues):
    """The law above can fail: the method of several trainers differs by far more than rounding."""
    encoder = make_encoder()
    examples = sorted(
        _examples(encoder, sample_dialogues), key=lambda example: len(example.input_ids)
    )
    halves = [examples[:4], examples[-4:]]
    _, norm, gradient = _gradient(encoder, halves)
    means = [_gradient(encoder, [half])[2] for half in halves]
    assert torch.linalg.vector_norm(gradient - sum(means) / 2) > 0.01 * norm


def test_padding_changes_neither_loss_nor_gradient(make_encoder, sample_dialogues):
    encoder = make_encoder()
    long, short = sorted(
        _examples(encoder, sample_dialogues), key=lambda example: -len(example.input_ids)
    )[:24:23]
    together = _gradient(encoder, [[long, short]])
    apart = _gradient(encoder, [[long], [short]])
    assert math.isclose(together[0], apart[0], rel_tol=1e-5)
    assert torch.linalg.vector_norm(together[2] - apart[2]) < 1e-5 * together[1]


def test_padding_is_never_a_target_even_if_the_end_token_is_the_padding_token(make_encoder):
    encoder = make_encoder()
    assert encoder.pad_id == encoder.stop_ids[0]
    short = Example(np.array([1, 2, encoder.pad_id], np.int32), np.array([0, 1, 1], np.uint8))
    long = Example(np.arange(9, dtype=np.int32), np.ones(9, np.uint8))
    batch = pad([short, long], {ASSISTANT_TARGET}, encoder.pad_id)
    assert batch.labels.tolist() == [2, encoder.pad_id, *range(1, 9)]
    assert batch.predictors.tolist() == [0, 1, *range(9, 17)], (
        "the first token of a row is given, never a target"
    )
    assert batch.num_tokens == 12
