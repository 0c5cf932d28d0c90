"""The choice of a token: its distribution, its randomness, and scores that are not finite."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

from convo_cli.config.schema import GenerationSettings
from convo_cli.model.decoding.decode_loop import closed_up
from convo_cli.model.decoding.queries import in_batches
from convo_cli.model.decoding.sampling import TokenChooser, reply_randomness

SCORES = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -3.0])
GREEDY = GenerationSettings(temperature=0.0)


def shares(num=3000, **settings):
    """The share of each token among many rows with the same scores."""
    chosen = GenerationSettings(**{"temperature": 1.0, "top_p": 1.0, **settings})
    chooser = TokenChooser(chosen, [[0]] * num, [reply_randomness(0, n) for n in range(num)])
    tokens = chooser.choose(SCORES.expand(num, -1))
    return torch.bincount(torch.tensor(tokens), minlength=len(SCORES)) / num


def likely(kept, temperature=1.0):
    probabilities = (SCORES / temperature).softmax(-1)
    probabilities[[n for n in range(len(SCORES)) if n not in kept]] = 0
    return probabilities / probabilities.sum()


@pytest.mark.parametrize(
    ("settings", "kept", "temperature"),
    [
        ({}, range(6), 1.0),
        ({"temperature": 2.0}, range(6), 2.0),
        ({"top_k": 2}, [0, 1], 1.0),
        ({"top_p": 0.6}, [0, 1], 1.0),
        ({"min_p": 0.2}, [0, 1, 2], 1.0),
        ({"temperature": 0.5, "min_p": 0.2}, [0], 0.5),
    ],
    ids=str,
)
def test_tokens_have_the_shares_of_their_probabilities(settings, kept, temperature):
    expected = likely(kept, temperature)
    found = shares(**settings)
    assert (found[expected == 0] == 0).all()
    assert (found - expected).abs().max() < 4 * 0.5 / 3000**0.5


def test_the_penalty_is_that_of_transformers_and_counts_prompt_and_reply():
    logits = torch.randn(3, 20, generator=torch.Generator().manual_seed(0))
    prompts = [[1, 2, 2], [3], [4, 5]]
    settings = GenerationSettings(temperature=0.0, repetition_penalty=1.7)
    chooser = TokenChooser(settings, prompts, [reply_randomness(0, n) for n in range(3)])
    rule = RepetitionPenaltyLogitsProcessor(1.7)
    for _ in range(6):
        expected = [
            int(rule(torch.tensor([prompt]), logits[row : row + 1]).argmax())
            for row, prompt in enumerate(prompts)
        ]
        assert chooser.choose(logits) == expected
        prompts = [[*prompt, token] for prompt, token in zip(prompts, expected, strict=True)]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_cannot_be_sampled(bad):
    chooser = TokenChooser(GenerationSettings(), [[0]], [reply_randomness(0, 0)])
    with pytest.raises(ArithmeticError, match="not finite"):
        chooser.choose(torch.tensor([[0.0, bad]]))


@given(st.sets(st.integers(0, 20), min_size=1))
def test_rows_that_go_on_close_up_and_each_place_is_filled_from_a_later_one(going):
    places = closed_up(sorted(going))
    assert sorted(places) == sorted(going)
    assert all(place <= kept for place, kept in enumerate(places))


@given(st.lists(st.integers(1, 9000)), st.integers(1, 5))
def test_batches_keep_the_order_and_both_bounds(sizes, max_rows):
    batches = list(in_batches(sizes, lambda size: size, max_rows))
    assert [size for batch in batches for size in batch] == sizes
    assert all(len(batch) <= max_rows for batch in batches)
    assert all(len(batch) == 1 or max(batch) * len(batch) <= 16_384 for batch in batches)
