"""Rows that grow, are cut, copied and joined have the logits of whole rows."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from convo_cli.model.decoding.generator import Generator
from convo_cli.model.decoding.passes.cached_forward import CachedForward
from convo_cli.model.decoding.passes.fast_forward import FastForward
from convo_cli.model.decoding.passes.forward_choice import ProvenForward
from tests.laws.test_decoding import FAMILIES, ROPE, build

LONGEST = 90


@pytest.fixture(scope="module")
def encoder(make_encoder):
    return make_encoder(max_length=96)


CACHED = "Llama in transformers' cache"
NO_CACHE = "GPT-2 without a cache"
JOINED = ("GPT-2", "Llama", CACHED, NO_CACHE, "ALiBi positions")


def open_family(name, encoder):
    family = {CACHED: "Llama", NO_CACHE: "GPT-2"}.get(name, name)
    model = build(*FAMILIES[family], len(encoder.tokenizer))
    forward = ProvenForward(model, encoder)
    if name in (CACHED, NO_CACHE):
        forward.passes = CachedForward(model, has_cache=name == CACHED)
    return model, forward


@pytest.fixture(scope="module", params=JOINED)
def opened(request, encoder):
    return (*open_family(request.param, encoder), request.param)


class Twin:
    """Rows, and the ids that they should hold."""

    def __init__(self, model, forward, prompts, room=4):
        self.model, self.forward = model, forward
        self.ids = [list(prompt) for prompt in prompts]
        self.rows, logits = forward.start(prompts, room)
        self.require(logits)

    @torch.inference_mode()
    def require(self, logits):
        assert self.rows.num_tokens == list(map(len, self.ids))
        for row, ids in zip(logits, self.ids, strict=True):
            expected = self.model(torch.tensor([ids])).logits[0, -1]
            assert (row - expected).abs().max() < 1e-3 * expected.std()

    def step(self, tokens):
        for ids, token in zip(self.ids, tokens, strict=True):
            ids.append(token)
        self.require(self.rows.step(tokens))

    def keep(self, places):
        self.ids = [self.ids[place] for place in places]
        self.rows.keep(places)

    def take(self, place):
        other = Twin.__new__(Twin)
        other.model, other.forward = self.model, self.forward
        other.ids, other.rows = [list(self.ids[place])], self.rows.take(place)
        return other

    def join(self, other):
        self.ids += other.ids
        self.rows.join(other.rows)


@torch.inference_mode()
def test_rows_have_the_logits_of_whole_rows_after_any_changes(opened):
    model, forward, name = opened
    assert forward.can_join
    assert forward.can_extend == (name != NO_CACHE)
    draws = random.Random(name)
    words = range(300)

    def some(least, most):
        return [draws.choice(words) for _ in range(draws.randint(least, most))]

    batch = Twin(model, forward.passes, [some(1, 9), some(1, 30)])
    alone = None
    seen = set()
    for _ in range(120):
        longest = max(map(len, batch.ids))
        action = draws.choice(["step", "step", "keep", "take", "extend", "cut", "join", "start"])
        if longest >= LONGEST:
            kept = [n for n, ids in enumerate(batch.ids) if len(ids) < LONGEST]
            if not kept:
                batch = Twin(model, forward.passes, [some(1, 9)])
            elif len(kept) < len(batch.ids):
                batch.keep(kept)
            continue
        if action == "step":
            batch.step([draws.choice(words) for _ in batch.ids])
        elif action == "keep" and len(batch.ids) > 1:
            batch.keep(sorted(draws.sample(range(len(batch.ids)), len(batch.ids) - 1)))
        elif action == "take":
            alone = batch.take(draws.randrange(len(batch.ids)))
        elif action == "start" and alone is None:
            alone = Twin(model, forward.passes, [some(1, LONGEST)])
        elif action == "extend" and alone is not None and len(alone.ids[0]) < 70:
            more = some(1, 20)
            alone.ids[0] += more
            alone.require(alone.rows.extend(more))
        elif action == "cut" and alone is not None and len(alone.ids[0]) > 1:
            length = draws.randint(1, len(alone.ids[0]))
            del alone.ids[0][length:]
            alone.rows.cut(length)
            token = draws.choice(words)
            alone.step([token])
        elif action == "join" and alone is not None and len(batch.ids) < 5:
            batch.join(alone)
            alone = None
        else:
            continue
        seen.add(action)
    assert seen >= {"step", "keep", "take", "join", "start", "extend", "cut"}


@torch.inference_mode()
def test_memory_does_not_grow_when_rows_join_and_leave_for_long(opened):
    """The batch never holds more slots than a small multiple of its longest row needs."""
    _, forward, _ = opened
    draws = random.Random(1)
    rows, _ = forward.passes.start([[1] * 8], 0)
    a_token = rows.num_bytes / 8
    most = 0
    for _ in range(150):
        other, _ = forward.passes.start([[2] * draws.randint(1, 8)], 0)
        rows.join(other)
        for _ in range(3):
            rows.step([3] * len(rows.num_tokens))
        if len(rows.num_tokens) == 4:
            rows.keep([1, 2, 3])
        most = max(most, rows.num_bytes)
    assert max(rows.num_tokens) < 24
    # 4 rows of 24 tokens, with as many free slots as a new batch gets
    assert most <= a_token * 4 * (24 + 64)


@torch.inference_mode()
def test_a_row_reads_long_texts_in_pieces(encoder, monkeypatch):
    from convo_cli.model.decoding.passes import fast_rows

    monkeypatch.setattr(fast_rows, "_CHUNK", 7)
    for family in ("GPT-2", "Llama"):
        model, forward = open_family(family, encoder)
        assert isinstance(forward.passes, FastForward)
        twin = Twin(model, forward.passes, [[5, 6]])
        more = list(range(1, 60))
        twin.ids[0] += more
        twin.require(twin.rows.extend(more))


@torch.inference_mode()
def test_slots_grow_by_a_share_and_never_beyond_the_longest_row(encoder):
    _, forward = open_family("Llama", encoder)
    rows, _ = forward.passes.start([[1, 2, 3]], 10_000)
    sizes = {rows.num_bytes}
    for _ in range(93):
        rows.step([4])
        sizes.add(rows.num_bytes)
    full, _ = forward.passes.start([[1] * 96], 0)
    assert max(sizes) == full.num_bytes
    assert len(sizes) < 4
    assert rows.take(0).num_bytes == full.num_bytes


@torch.inference_mode()
def test_methods_for_one_row_refuse_a_batch_and_a_length_beyond_the_row(opened):
    _, forward, _ = opened
    rows, _ = forward.passes.start([[1, 2], [3]], 0)
    for call in (lambda: rows.extend([1]), lambda: rows.cut(1)):
        with pytest.raises(ValueError, match="2 rows"):
            call()
    rows, _ = forward.passes.start([[1, 2]], 0)
    for length in (-1, 3):
        with pytest.raises(ValueError, match="the row has 2 tokens"):
            rows.cut(length)
    with pytest.raises(ValueError, match="no token"):
        rows.extend([])


UNCUT = [
    "Mistral with a sliding window",
    pytest.param("a recurrent state", marks=pytest.mark.slow),  # computed token by token
]


@pytest.mark.parametrize("family", UNCUT)
def test_models_whose_cache_cannot_be_cut_are_recognised(family, encoder):
    _, forward = open_family(family, encoder)
    with torch.inference_mode():
        assert not forward.can_extend
        # Without a cache, rows are read again at each step, so they can be joined.
        assert not (forward.can_join and forward.passes.has_cache)


def test_rotations_that_depend_on_the_length_are_neither_cut_nor_joined(encoder):
    kind, options = "Llama", dict[str, Any](ROPE)
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}
    model = build(kind, {**options, "rope_parameters": rope}, len(encoder.tokenizer))
    generator = Generator(model, encoder)
    with torch.inference_mode(), generator.answering() as forward:
        assert isinstance(forward.passes, CachedForward)
        assert not forward.can_extend
        assert not forward.can_join
