"""Replies: their end, the streamed text, dropped history, and a model left as it was."""

from __future__ import annotations

import pytest
import torch

from convo_cli.config.schema import GenerationSettings, ScratchConfig
from convo_cli.data.dialogue import Turn
from convo_cli.errors import DataError, ModelError
from convo_cli.model.create import build_scratch_model
from convo_cli.model.decoding.generator import Generator
from convo_cli.model.decoding.sampling_defaults import set_generation_defaults

GREEDY = GenerationSettings(temperature=0.0, max_new_tokens=12)
HELLO = (Turn("user", "Hello there"),)


@pytest.fixture(scope="module")
def encoder(make_encoder):
    return make_encoder(max_length=64)


def scripted(encoder, script):
    """A generator of the given ids: the last logits of its model are scripted by position."""
    model = build_scratch_model(
        ScratchConfig(layers=1, width=16, heads=2, context=64), encoder, seed=0
    )
    start = len(encoder.prompt(HELLO, max_new_tokens=GREEDY.max_new_tokens).ids)
    plan = torch.zeros(64, len(encoder.tokenizer))
    for offset, token in enumerate(script):
        plan[start + offset - 1, token] = 1e4

    def follow(module, arguments, keywords, output):
        positions = keywords["position_ids"] if keywords.get("position_ids") is not None else None
        assert positions is not None, "generate states the positions"
        output.logits = plan[positions[:, -output.logits.shape[1] :]]
        return output

    model.register_forward_hook(follow, with_kwargs=True)
    return Generator(model, encoder)


@pytest.fixture(scope="module")
def words(encoder):
    return encoder.tokenizer.encode("Good, and you? 안녕 🙂", add_special_tokens=False)


def test_a_reply_ends_with_the_stop_token_which_is_not_text(encoder, words):
    end = encoder.stop_ids[0]
    reply = scripted(encoder, [*words[:5], end, *words]).stream(HELLO, GREEDY)
    assert reply.ids == (*words[:5], end)
    assert reply.stopped
    assert reply.text == encoder.decode(words[:5])
    assert reply.num_dropped == 0


def test_a_reply_without_a_stop_token_is_cut_at_the_limit(encoder, words):
    script = (words * 3)[:20]
    generator = scripted(encoder, script)
    for limit in (1, 5):
        reply = generator.stream(HELLO, GREEDY.model_copy(update={"max_new_tokens": limit}))
        assert reply.ids == tuple(script[:limit])
        assert not reply.stopped


def test_a_reply_that_stops_with_the_last_token_it_may_have_did_stop(encoder, words):
    end = encoder.stop_ids[0]
    reply = scripted(encoder, [words[0], end]).stream(
        HELLO, GREEDY.model_copy(update={"max_new_tokens": 2})
    )
    assert reply.stopped


def test_a_reply_is_at_most_half_of_the_window(encoder, words):
    reply = scripted(encoder, (words * 9)[:50]).stream(
        HELLO, GREEDY.model_copy(update={"max_new_tokens": 1000})
    )
    assert len(reply.ids) == 32


def test_a_model_that_cannot_compute_a_reply_is_refused(encoder):
    model = build_scratch_model(
        ScratchConfig(layers=1, width=16, heads=2, context=64), encoder, seed=0
    )
    model.transformer.ln_f.eps = float("nan")
    with pytest.raises(ModelError, match="GPT2LMHeadModel cannot compute a reply"):
        Generator(model, encoder).stream(HELLO, GREEDY.model_copy(update={"temperature": 1.0}))


def test_the_pieces_that_are_streamed_join_to_the_text_without_half_characters(encoder):
    ids = encoder.tokenizer.encode("ꙮ 안녕 🙂!", add_special_tokens=False)
    pieces = []
    settings = GREEDY.model_copy(update={"max_new_tokens": 32})
    reply = scripted(encoder, [*ids, encoder.stop_ids[0]]).stream(HELLO, settings, pieces.append)
    assert "".join(pieces) == reply.text == "ꙮ 안녕 🙂!"
    assert len(pieces) > 1
    assert all(piece and "\ufffd" not in piece for piece in pieces)


def test_a_reply_cut_inside_a_character_still_streams_all_of_its_text(encoder):
    ids = encoder.tokenizer.encode("a ꙮ", add_special_tokens=False)
    pieces = []
    reply = scripted(encoder, ids).stream(
        HELLO, GREEDY.model_copy(update={"max_new_tokens": len(ids) - 1}), pieces.append
    )
    assert "".join(pieces) == reply.text == encoder.decode(ids[:-1])


@pytest.mark.parametrize(
    "error", [ValueError("terminal gone"), RuntimeError("stopped"), KeyboardInterrupt()]
)
@pytest.mark.parametrize("is_training", [True, False])
def test_an_exception_of_on_text_ends_the_reply_and_leaves_the_model_usable(
    encoder, words, error, is_training
):
    generator = scripted(encoder, [*words[:5], encoder.stop_ids[0]])
    generator.model.train(is_training)
    seen = []

    def stop(text):
        seen.append(text)
        raise error

    with pytest.raises(type(error)) as caught:
        generator.stream(HELLO, GREEDY, stop)
    assert caught.value is error
    assert len(seen) == 1
    assert generator.model.training == is_training
    assert generator.stream(HELLO, GREEDY).text == encoder.decode(words[:5])


def test_the_model_answers_without_dropout_and_goes_on_training_afterwards(encoder):
    size = ScratchConfig(layers=1, width=16, heads=2, context=64, dropout=0.9)
    model = build_scratch_model(size, encoder, seed=0).train()
    first, second = (Generator(model, encoder).stream(HELLO, GREEDY) for _ in range(2))
    assert first == second
    assert all(module.training for module in model.modules())
    assert all(
        parameter.grad is None and parameter.requires_grad for parameter in model.parameters()
    )


# Sampling


@pytest.fixture(scope="module")
def random_generator(encoder):
    model = build_scratch_model(
        ScratchConfig(layers=1, width=16, heads=2, context=64), encoder, seed=0
    )
    return Generator(model, encoder)


def replies(generator, **settings):
    chosen = GenerationSettings(max_new_tokens=6).model_copy(update=settings)
    made = []
    for seed in (1, 1, 2):
        made.append(generator.replies([HELLO], chosen, seed=seed)[0].ids)
    return made


def test_sampled_replies_depend_on_the_seed_and_greedy_ones_do_not(random_generator):
    one, same, other = replies(random_generator, temperature=1.0)
    assert one == same != other
    assert len(set(replies(random_generator, temperature=0.0))) == 1


@pytest.mark.parametrize("settings", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 0.9999}])
def test_each_limit_of_sampling_can_leave_the_likeliest_token_alone(random_generator, settings):
    greedy = replies(random_generator, temperature=0.0)
    assert replies(random_generator, temperature=1.0, **settings) == greedy
    assert replies(random_generator, temperature=1.0) != greedy


def test_a_repetition_penalty_changes_what_is_likeliest(random_generator):
    plain = replies(random_generator, temperature=0.0)[0]
    penalised = replies(random_generator, temperature=0.0, repetition_penalty=10.0)[0]
    assert len(set(penalised)) > len(set(plain))


def test_the_defaults_of_the_models_own_folder_do_not_leak_into_a_reply(encoder):
    model = build_scratch_model(
        ScratchConfig(layers=1, width=16, heads=2, context=64), encoder, seed=0
    )
    plain = Generator(model, encoder).stream(HELLO, GREEDY)
    set_generation_defaults(
        model, encoder, GenerationSettings(repetition_penalty=5.0, top_k=1, max_new_tokens=2)
    )
    assert Generator(model, encoder).stream(HELLO, GREEDY) == plain


# The window


def test_history_that_does_not_fit_is_dropped_from_the_left_by_whole_turns(encoder, words):
    system = Turn("system", "Be kind.")
    history = [system]
    for number in range(12):
        history += [Turn("user", f"question {number}"), Turn("assistant", f"answer {number}")]
    history.append(Turn("user", "Hello there"))
    seen = []
    generator = scripted(encoder, words)
    generator.model.register_forward_pre_hook(
        lambda module, arguments, keywords: seen.append(keywords["input_ids"][0].tolist()),
        with_kwargs=True,
    )
    reply = generator.stream(history, GREEDY)
    assert 0 < reply.num_dropped < 24
    kept = encoder.prompt(
        [system, *history[1 + reply.num_dropped :]], max_new_tokens=GREEDY.max_new_tokens
    )
    assert kept.num_dropped == 0
    assert kept.ids in seen
    assert len(kept.ids) + GREEDY.max_new_tokens <= 64
    one_more = encoder.prompt(
        [system, *history[reply.num_dropped :]], max_new_tokens=GREEDY.max_new_tokens
    )
    assert one_more.num_dropped == 1


def test_turns_are_dropped_only_for_a_quarter_of_the_window_and_a_user_turn_comes_first(
    encoder, words
):
    """A longer reply gets what the history leaves."""
    generator = scripted(encoder, words)
    history = [Turn("assistant" if k % 2 else "user", "one two three") for k in range(30)]
    for stop in range(1, 30, 2):
        wanted = GREEDY.model_copy(update={"max_new_tokens": 32})
        reply = generator.stream(history[:stop], wanted)
        kept = encoder.prompt(history[reply.num_dropped : stop], max_new_tokens=1)
        assert reply.num_dropped % 2 == 0
        assert len(reply.ids) <= min(32, 64 - len(kept.ids))
        if reply.num_dropped:
            more = encoder.prompt(history[reply.num_dropped - 2 : stop], max_new_tokens=1)
            assert more.num_dropped or len(more.ids) > 64 - 16
    assert reply.num_dropped


def test_a_message_longer_than_the_window_is_refused_before_anything_is_shown(random_generator):
    pieces = []
    with pytest.raises(DataError, match="the last message has"):
        random_generator.stream([Turn("user", "very " * 100)], GREEDY, pieces.append)
    assert pieces == []


def test_a_system_text_that_leaves_no_room_is_named_in_the_hint(random_generator):
    with pytest.raises(DataError, match=r"leaves only 0 beside .* tokens of system text") as caught:
        random_generator.stream([Turn("system", "very " * 100), Turn("user", "Hi")], GREEDY)
    assert caught.value.hint.startswith("shorten the system text")
