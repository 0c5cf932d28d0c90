"""The chunked loss is cross-entropy in value and gradient, without all logits at once."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from convo_cli.model.batches import target_loss
from convo_cli.model.batches.target_loss import target_nll
from tests.cases import num_examples


def make(num, width, vocabulary, *, has_bias, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(num, width, generator=generator, dtype=dtype, requires_grad=True)
    weight = torch.randn(vocabulary, width, generator=generator, dtype=dtype, requires_grad=True)
    bias = (
        torch.randn(vocabulary, generator=generator, dtype=dtype, requires_grad=True)
        if has_bias
        else None
    )
    labels = torch.randint(vocabulary, (num,), generator=generator)
    return hidden, weight, bias, labels


def gradients(loss, *leaves):
    return torch.autograd.grad(loss, [leaf for leaf in leaves if leaf is not None])


@settings(max_examples=num_examples(60), deadline=None)
@given(
    num=st.integers(0, 40),
    width=st.integers(1, 8),
    vocabulary=st.integers(1, 30),
    has_bias=st.booleans(),
    chunk=st.integers(1, 400),
    scale=st.floats(0.01, 1000),
)
def test_value_and_gradients_are_those_of_cross_entropy(
    num, width, vocabulary, has_bias, chunk, scale
):
    hidden, weight, bias, labels = make(num, width, vocabulary, has_bias=has_bias)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(target_loss, "_CHUNK_ELEMENTS", chunk)
        patch.setattr(target_loss, "_MIN_CHUNK_ROWS", 1)
        ours, _ = target_nll(hidden, weight, bias, labels)
    plain = functional.cross_entropy(
        functional.linear(hidden, weight, bias), labels, reduction="sum"
    )
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)
    for one, other in zip(
        gradients(ours * scale, hidden, weight, bias),
        gradients(plain * scale, hidden, weight, bias),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * scale)


def test_under_autocast_it_is_as_exact_as_plain_logits_in_16_bits():
    hidden, weight, _, labels = make(200, 64, 500, has_bias=False)
    exact = functional.cross_entropy(functional.linear(hidden, weight), labels, reduction="sum")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, _ = target_nll(hidden, weight, None, labels)
        plain = functional.cross_entropy(
            functional.linear(hidden, weight).float(), labels, reduction="sum"
        )
    assert abs(ours - exact) < 2 * abs(plain - exact) + 1.0
    assert ours.dtype == torch.float32
    mine, reference = gradients(ours, weight)[0], gradients(exact, weight)[0]
    assert mine.dtype == torch.float32, "the parameter is in 32 bits, so is its gradient"
    assert (mine - reference).norm() < 0.02 * reference.norm()


@pytest.mark.parametrize("scale", [1.0, 1 / 2000])
def test_many_targets_of_one_token_do_not_overflow_fp16(scale):
    hidden = torch.full((2000, 4), 60.0, requires_grad=True)
    weight = torch.zeros(8, 4, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.float16):
        loss, _ = target_nll(hidden, weight, None, torch.zeros(2000, dtype=torch.long))
    gradient = gradients(loss * scale, weight)[0]
    exact = -60.0 * 2000 * scale * 7 / 8
    if abs(exact) < 65504:
        assert gradient[0, 0] == pytest.approx(exact, rel=1e-2)
    else:
        assert gradient[0, 0].isinf(), (
            "what fp16 cannot hold is seen by the scaler, which makes the loss smaller"
        )


def test_the_logits_never_exist_all_at_once(monkeypatch):
    monkeypatch.setattr(target_loss, "_CHUNK_ELEMENTS", 50_000)
    monkeypatch.setattr(target_loss, "_MIN_CHUNK_ROWS", 1)
    seen = []
    linear = functional.linear

    def watched(*arguments):
        logits = linear(*arguments)
        seen.append(tuple(logits.shape))
        return logits

    monkeypatch.setattr(torch.nn.functional, "linear", watched)
    hidden, weight, _, labels = make(333, 4, 1000, has_bias=False)
    target_nll(hidden, weight, None, labels)
    assert seen == [(50, 1000)] * 6 + [(33, 1000)]


def test_without_gradients_no_tensor_is_kept():
    hidden, weight, _, labels = make(10, 4, 30, has_bias=False)
    with torch.inference_mode():
        value, _ = target_nll(hidden, weight, None, labels)
    assert value.grad_fn is None


def test_frozen_weights_get_no_gradient_and_the_rest_does():
    hidden, weight, bias, labels = make(10, 4, 30, has_bias=True)
    weight, bias = weight.detach(), bias.detach()
    plain = functional.cross_entropy(
        functional.linear(hidden, weight, bias), labels, reduction="sum"
    )
    ours, _ = target_nll(hidden, weight, bias, labels)
    torch.testing.assert_close(gradients(ours, hidden), gradients(plain, hidden))
