"""Replies are those of transformers' `generate`, alone and in any batch, for any model."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from convo_cli.config.schema import GenerationSettings
from convo_cli.data.dialogue import Dialogue, Turn
from convo_cli.model.batches import loss
from convo_cli.model.batches.attention import NAME, attention_of, use_packed_attention
from convo_cli.model.decoding.generator import Generator
from convo_cli.model.decoding.passes.fast_forward import FastForward
from convo_cli.tokens.store import ASSISTANT_TARGET
from tests import families
from tests.random_models import FAMILIES, ROPE, build

GREEDY = GenerationSettings(temperature=0.0, max_new_tokens=10)
TIE = 1e-3
"""Logits that are closer are a tie: rounding may choose either token."""
BRANCHED = {"GPT-2", "Llama", "Qwen2", "Qwen3", "ALiBi positions"}
BATCHED = {"GPT-2", "Llama", "Qwen2", "Qwen3", "Mistral with a sliding window", "Gemma 2"}


@pytest.fixture(scope="module")
def encoder(make_encoder):
    return make_encoder(max_length=96)


SLOW = {"a recurrent state", "Qwen2", "Gemma 2"}
"""transformers computes the first token by token on a CPU; the second is Llama with biases, and the
third has the windows of Mistral."""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in FAMILIES
    ],
)
def generator(request, encoder):
    made = Generator(build(*FAMILIES[request.param], len(encoder.tokenizer)), encoder)
    made.family = request.param
    return made


@pytest.fixture(scope="module")
def histories(sample_dialogues):
    draws = random.Random(0)
    chosen = []
    for dialogue in draws.sample(sample_dialogues, 6):
        spoken = [turn for turn in dialogue.turns if turn.role != "system"]
        chosen.append([Turn("user", "Hi"), *spoken[: 1 + 2 * draws.randrange(3)]][-5:])
    return chosen


def by_generate(generator, ids, length, **sampling):
    """Return the ids of `generate` and, for each, the gap between the two best scores."""
    row = torch.tensor([ids])
    output = generator.model.generate(
        row,
        attention_mask=torch.ones_like(row),
        max_new_tokens=length,
        do_sample=False,
        eos_token_id=list(generator.encoder.stop_ids),
        pad_token_id=generator.encoder.pad_id,
        output_scores=True,
        return_dict_in_generate=True,
        **sampling,
    )
    best = [scores[0].topk(2).values for scores in output.scores]
    return output.sequences[0, len(ids) :].tolist(), [float(pair[0] - pair[1]) for pair in best]


def require_same(actual, expected, gaps):
    for place, (one, other) in enumerate(zip(actual, expected, strict=False)):
        if one != other:
            assert gaps[place] < TIE, f"{actual} instead of {expected} at {place}"
            return
    assert len(actual) == len(expected)


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_replies_are_those_of_generate_alone_and_in_any_batch(generator, histories, penalty):
    settings = GREEDY.model_copy(update={"repetition_penalty": penalty})
    histories = histories if penalty == 1.0 else histories[:3]
    queries = [generator.query(history, settings) for history in histories]
    expected = [
        by_generate(generator, query.ids, query.max_new_tokens, repetition_penalty=penalty)
        for query in queries
    ]
    together = generator.answer(queries, settings)
    backwards = generator.answer(queries[::-1], settings)[::-1]
    alone = [generator.answer([query], settings)[0] for query in queries[:2]]
    for replies in (together, backwards, alone):
        for reply, (ids, gaps) in zip(replies, expected, strict=False):
            require_same(list(reply.ids), ids, gaps)
    assert len({reply.ids for reply in together}) > 1


def test_families_that_can_be_batched_are(generator):
    generator.replies([[Turn("user", "Hi")]], GREEDY)
    assert (generator._forward[1].max_rows > 1) >= (generator.family in BATCHED)


SAMPLED = GenerationSettings(
    temperature=1.1, top_k=300, top_p=0.95, min_p=0.001, max_new_tokens=10, repetition_penalty=1.1
)


def test_a_sampled_reply_depends_on_the_seed_and_its_index_whatever_the_batch(generator, histories):
    together = generator.replies(histories, SAMPLED, seed=3)
    assert generator.replies(histories, SAMPLED, seed=3) == together
    assert generator.replies(histories[:4], SAMPLED, seed=3) == together[:4]
    for index in (0, 4):
        alone = generator.stream(histories[index], SAMPLED, seed=3, index=index)
        assert alone == together[index]
    assert generator.replies(histories, SAMPLED, seed=4) != together
    same = generator.replies([histories[0]] * 4, SAMPLED, seed=3)
    assert len({reply.ids for reply in same}) > 1


def test_known_families_are_computed_from_a_copy_of_their_weights(generator):
    generator.replies([[Turn("user", "Hi")]], GREEDY)
    known = {"GPT-2", "Llama", "Qwen2", "Qwen3"}
    assert isinstance(generator._forward[1].passes, FastForward) == (generator.family in known)


# All turns of a dialogue


def all_histories(dialogues, answered):
    return [
        dialogue.turns[:turn]
        for dialogue, one in zip(dialogues, answered, strict=True)
        for turn in one.turns
    ]


def nll_one_by_one(generator, dialogue):
    (encoded,) = generator.encoder.encode_all([dialogue], long_turns="split")
    batches = [loss.pad([one], (ASSISTANT_TARGET,), 0) for one in encoded.examples]
    return torch.cat([loss.plain_nll(generator.model, one)[1] for one in batches]).tolist()


def require_all_turns(generator, dialogues, settings):
    """Replies and nll are those of one history and one example at a time."""
    answered = generator.all_replies(dialogues, settings, seed=5)
    for dialogue, one in zip(dialogues, answered, strict=True):
        with torch.no_grad():
            expected = nll_one_by_one(generator, dialogue)
        assert one.nll.tolist() == pytest.approx(expected, rel=1e-3, abs=1e-4)
    histories = all_histories(dialogues, answered)
    separate = generator.replies(histories, settings, seed=5)
    together = [reply for one in answered for reply in one.replies]
    if settings.temperature:
        assert together == separate
    for history, reply, other in zip(histories, together, separate, strict=True):
        if reply != other:
            query = generator.query(history, settings)
            require_same(list(reply.ids), *by_generate(generator, query.ids, query.max_new_tokens))
    return answered


@pytest.fixture(scope="module")
def dialogues(sample_dialogues):
    """Dialogues that fit the window, and one that does not."""
    chosen = random.Random(1).sample(sample_dialogues, 3)
    assert all(len(dialogue.turns) >= 2 for dialogue in chosen)
    return [*chosen, Dialogue(tuple(turn for one in chosen for turn in one.turns))]


@pytest.mark.parametrize("settings", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_replies_to_all_turns_of_a_dialogue_are_those_to_each_history(
    generator, dialogues, settings
):
    answered = require_all_turns(generator, dialogues, settings)
    assert [len(one.turns) for one in answered[:-1]] == [
        sum(turn.role == "assistant" for turn in dialogue.turns[1:]) for dialogue in dialogues[:-1]
    ]
    assert generator._forward[1].can_branch == (generator.family in BRANCHED)


def test_an_empty_list_of_dialogues_has_no_replies(generator):
    assert generator.all_replies([], GREEDY) == generator.replies([], GREEDY) == []


RERENDERED = {
    **{name: families.FAMILIES[name] for name in ("llama2", "smollm3")},
    "qwen3": families.CHANGING["qwen3, which thinks only in its last turn"],
}


@pytest.mark.parametrize("family", RERENDERED)
def test_templates_that_render_earlier_turns_differently_change_no_prompt(
    family, dialogues, sample_dialogues
):
    tokenizer = families.family_tokenizer(RERENDERED[family], sample_dialogues[:5])
    encoder = families.native_encoder(tokenizer, 256)
    options = {**ROPE, "max_position_embeddings": 256}
    generator = Generator(build("Llama", options, len(tokenizer)), encoder)
    require_all_turns(generator, dialogues[:2], GREEDY)


# Weights that change, and models that are not what they seem


def test_a_reply_comes_from_the_present_weights_while_they_are_trained(encoder, histories):
    generator = Generator(build(*FAMILIES["Llama"], len(encoder.tokenizer)), encoder)
    before = generator.replies(histories, GREEDY)
    optimizer = torch.optim.SGD(generator.model.parameters(), lr=5.0)
    row = torch.tensor([generator.query(histories[0], GREEDY).ids])
    generator.model.train()
    generator.model(row, labels=row).loss.backward()
    optimizer.step()
    after = generator.replies(histories, GREEDY)
    assert generator.model.training
    assert [reply.ids for reply in after] != [reply.ids for reply in before]
    generator.model.eval()
    for history, reply in zip(histories, after, strict=True):
        query = generator.query(history, GREEDY)
        require_same(list(reply.ids), *by_generate(generator, query.ids, query.max_new_tokens))


@pytest.mark.parametrize("family", ["GPT-2", "Qwen3"])
def test_a_model_that_trains_on_packs_sees_no_padding_and_keeps_its_attention(
    encoder, histories, dialogues, family
):
    model = build(*FAMILIES[family], len(encoder.tokenizer)).double()  # too wide for a copy
    plain = Generator(model, encoder)
    expected, every = plain.replies(histories, GREEDY), plain.all_replies(dialogues, GREEDY)
    use_packed_attention(model)
    packed: Any = Generator(model, encoder)
    assert packed.replies(histories, GREEDY) == expected
    assert [one.replies for one in packed.all_replies(dialogues, GREEDY)] == [
        one.replies for one in every
    ]
    assert attention_of(model) == NAME
    assert packed._forward[1].max_rows > 1
    assert packed._forward[1].can_branch


def test_a_model_whose_cache_or_padding_is_wrong_still_replies_like_its_whole_rows(
    encoder, histories
):
    """A hook makes the logits depend on how the model is called."""
    model = build(*FAMILIES["Llama"], len(encoder.tokenizer)).double()  # too wide for a copy
    generator = Generator(model, encoder)
    expected = generator.replies(histories, GREEDY)

    def spoil(module, arguments, keywords, output):
        mask = keywords["attention_mask"]
        if keywords.get("past_key_values") is not None or not mask.all():
            output.logits = -output.logits
        return output

    generator.model.register_forward_hook(spoil, with_kwargs=True)
    spoiled: Any = Generator(model, encoder)
    assert spoiled.replies(histories, GREEDY) == expected
    assert spoiled._forward[1].max_rows == 1
    assert not spoiled._forward[1].passes.has_cache
