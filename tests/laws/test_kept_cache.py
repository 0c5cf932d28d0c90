"""A streamed reply that reuses the row of the last one is the reply that reuses nothing."""

from __future__ import annotations

import gc
import random
import signal
import sys
import weakref
from pathlib import Path

import pytest
import torch

import convo_cli
from convo_cli.config.schema import GenerationSettings, TokenizerConfig
from convo_cli.data.dialogue import Turn
from convo_cli.errors import DataError
from convo_cli.model.decoding.generator import Generator
from convo_cli.model.decoding.passes.cached_forward import CachedForward
from convo_cli.model.decoding.passes.fast_forward import FastForward
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.templates.template import make_template
from convo_cli.text.tokenizers.trained import (
    add_special_tokens,
    from_sentencepiece,
    train_sentencepiece,
)
from tests import families
from tests.laws.test_decoding import FAMILIES, ROPE, TIE, build, by_generate, require_same

GREEDY = GenerationSettings(temperature=0.0, max_new_tokens=10)
SAMPLED = GenerationSettings(
    temperature=1.1, top_k=300, top_p=0.95, min_p=0.001, max_new_tokens=10, repetition_penalty=1.1
)
WINDOW = 128
CACHED = "Llama in transformers' cache"
KINDS = {
    "GPT-2": FastForward,
    "Llama": FastForward,
    CACHED: CachedForward,
    "ALiBi positions": CachedForward,
    "Mistral with a sliding window": CachedForward,  # its cache cannot be cut
}
WORDS = ["Hello", "there,", "how", "are", "you?", "I", "like", "old", "maps", "안녕", "🙂", "!"]


def talkative(name, encoder):
    """Return a model with random weights that often ends its replies."""
    kind, options = FAMILIES["Llama" if name == CACHED else name]
    model = build(kind, options, len(encoder.tokenizer))
    with torch.no_grad():
        model.get_output_embeddings().weight[encoder.stop_ids[0]] *= 2.0
    return model.double() if name == CACHED else model


class Pair:
    """A generator that keeps its row, and one that reads each prompt from the beginning."""

    def __init__(self, model, encoder):
        self.kept, self.plain = Generator(model, encoder), Generator(model, encoder)
        self.encoder = encoder
        self.read: list[int] = []
        """Ids that the kept row holds."""
        self.num_reused: list[int] = []

    def reply(self, history, settings, seed=0):
        reply = self.kept.stream(history, settings, seed=seed)
        self.plain.drop_kept_row()
        expected = self.plain.stream(history, settings, seed=seed)
        query = self.kept.query(history, settings)
        if reply != expected:
            assert not settings.temperature
            gaps = by_generate(self.plain, query.ids, query.max_new_tokens)[1]
            require_same(list(reply.ids), list(expected.ids), gaps)
        assert reply.trace.num_reused == self.expected(query.ids)
        assert expected.trace.num_reused == 0
        assert reply.trace.prompt_length == len(query.ids)
        assert reply.trace.probabilities == pytest.approx(expected.trace.probabilities, rel=1e-2)
        self.num_reused.append(reply.trace.num_reused)
        self.read = [*query.ids, *reply.ids[:-1]]  # the last token was never read
        return reply

    def expected(self, ids):
        if not self.kept._forward[1].can_extend:
            return 0
        shared = 0
        for one, other in zip(self.read, ids[:-1], strict=False):
            if one != other:
                break
            shared += 1
        return shared


@pytest.fixture(scope="module")
def encoder(make_encoder):
    return make_encoder(max_length=WINDOW)


@pytest.fixture(scope="module", params=KINDS)
def pair(request, encoder):
    made = Pair(talkative(request.param, encoder), encoder)
    made.reply([Turn("user", "Hi")], GREEDY)
    assert type(made.kept._forward[1].passes) is KINDS[request.param]
    return made


def changed(history, draws):
    """Return another history, as the commands of a chat leave it, that ends with a user turn."""
    history = list(history)
    action = draws.choice(["say", "say", "say", "retry", "undo", "edit", "system", "reset"])
    said = [Turn("user", " ".join(draws.choices(WORDS, k=draws.randint(1, 8))))]
    if action == "retry":
        return history[:-1]
    if action == "undo":
        return [*history[:-2], *said]
    if action == "edit":
        place = draws.randrange(len(history))
        text = " ".join(draws.choices(WORDS, k=3))
        history[place] = Turn(history[place].role, text)
    if action == "system":
        history = [turn for turn in history if turn.role != "system"]
        history = [Turn("system", " ".join(draws.choices(WORDS, k=2))), *history]
    if action == "reset":
        return said
    return [*history, *said]


def converse(pair, settings, number, seed):
    """Answer this number of histories, each made from the one before."""
    draws = random.Random(seed)
    history = []
    num_dropped = num_stopped = 0
    for attempt in range(number):
        history = changed(history, draws) if history else [Turn("user", "Hello there")]
        reply = pair.reply(history, settings, seed=attempt)
        num_dropped += reply.num_dropped
        num_stopped += reply.stopped
        history.append(Turn("assistant", reply.text.strip()))
    return num_dropped, num_stopped


@pytest.mark.parametrize("settings", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_replies_with_a_kept_row_are_those_without_in_any_conversation(pair, settings):
    pair.num_reused.clear()
    num_dropped, num_stopped = converse(pair, settings, 30, seed=settings.temperature)
    assert num_dropped, "the window never slid"
    assert num_stopped
    if pair.kept._forward[1].can_extend:
        assert sum(shared > 10 for shared in pair.num_reused) > 10
    else:
        assert not any(pair.num_reused)


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_a_reply_whose_text_has_other_ids_than_the_model_chose_is_read_again(
    kind, sample_dialogues
):
    texts = [turn.text for dialogue in sample_dialogues for turn in dialogue.turns]
    settings = TokenizerConfig(kind=kind, vocab_size=700)
    tokenizer = from_sentencepiece(train_sentencepiece(texts, settings))
    template = make_template("turns", tokenizer)
    add_special_tokens(tokenizer, template.special_tokens)
    tokenizer.eos_token = tokenizer.pad_token = template.stop_tokens[-1]
    encoder = DialogueEncoder(tokenizer, template, max_length=WINDOW)
    pair = Pair(talkative("Llama", encoder), encoder)
    history, num_differ = [Turn("system", "Be kind.")], 0
    for attempt in range(6):
        history.append(Turn("user", "Hello there"))
        if pair.read:
            begun = pair.kept.query(history, SAMPLED).ids
            num_differ += begun[: len(pair.read)] != pair.read
        reply = pair.reply(history, SAMPLED, seed=attempt)
        history.append(Turn("assistant", reply.text.strip()))
    assert num_differ > 2, "every reply has the ids of its text"
    assert min(pair.num_reused[1:]) > 0


@pytest.mark.parametrize("family", ["llama2", "qwen3, which thinks only in its last turn"])
def test_templates_that_change_earlier_turns_are_read_again_from_there(family, sample_dialogues):
    chosen = families.FAMILIES.get(family) or families.CHANGING[family]
    tokenizer = families.family_tokenizer(chosen, sample_dialogues[:5])
    encoder = families.native_encoder(tokenizer, 256)
    model = build("Llama", {**ROPE, "max_position_embeddings": 256}, len(tokenizer))
    pair = Pair(model, encoder)
    history = []
    for attempt in range(8):
        reply = pair.reply([*history, Turn("user", WORDS[attempt])], SAMPLED, seed=attempt)
        history += [Turn("user", WORDS[attempt]), Turn("assistant", reply.text.strip() or "Yes")]
    assert max(pair.num_reused) > 20


def test_after_a_slide_only_the_system_turn_is_reused(encoder):
    pair = Pair(talkative("Llama", encoder), encoder)
    system = [Turn("system", "Be kind and brief.")]
    spoken = []
    dropped = []
    for attempt in range(16):
        spoken.append(Turn("user", " ".join([str(attempt * 7), *WORDS])))
        reply = pair.reply([*system, *spoken], GREEDY, seed=attempt)
        spoken.append(Turn("assistant", reply.text.strip()))
        dropped.append(reply.num_dropped)
    common = len(encoder.prompt([*system, Turn("user", "x")], max_new_tokens=1).ids)
    slid = [
        shared
        for shared, now, before in zip(pair.num_reused[1:], dropped[1:], dropped, strict=False)
        if now != before
    ]
    assert slid
    assert all(0 < shared <= common for shared in slid)


def test_a_model_of_128_positions_answers_many_turns_with_bounded_memory(encoder):
    generator = Generator(talkative("GPT-2", encoder), encoder)
    with torch.inference_mode(), generator.answering() as forward:
        full, _ = forward.passes.start([[1] * WINDOW], 0)
    history = []
    for attempt in range(120):
        history.append(Turn("user", WORDS[attempt % len(WORDS)]))
        reply = generator.stream(history, GREEDY, seed=attempt)
        history.append(Turn("assistant", reply.text.strip()))
        assert generator._kept._rows.num_bytes <= full.num_bytes
    assert reply.num_dropped > 100


# Interrupts


def stopping(error):
    """Return a receiver that raises at the first piece."""

    def receive(piece):
        raise error

    return receive


@pytest.mark.parametrize("error", [KeyboardInterrupt(), DataError("too long")])
def test_a_reply_that_was_stopped_leaves_no_trace_in_the_next_one(pair, error):
    history = [Turn("user", "Hello there, how are you?")]
    seed = next(seed for seed in range(99) if len(pair.reply(history, SAMPLED, seed).ids) > 4)
    with pytest.raises(type(error)):
        pair.kept.stream(history, SAMPLED, stopping(error), seed=seed)
    is_kept = isinstance(error, KeyboardInterrupt) and pair.kept._forward[1].can_extend
    assert (pair.kept._kept is not None) >= is_kept
    again = [*history, Turn("assistant", "Well"), Turn("user", "Go on")]
    pair.plain.drop_kept_row()
    reply = pair.kept.stream(again, SAMPLED, seed=4)
    assert reply == pair.plain.stream(again, SAMPLED, seed=4)
    assert (reply.trace.num_reused > 5) == is_kept


ROOT = str(Path(convo_cli.__file__).parent / "model" / "decoding")


def interrupted_at(number, act):
    """Raise KeyboardInterrupt at the line of this number that runs in decoding or in caches.

    Return whether there was such a line.
    """
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        file = frame.f_code.co_filename
        if not file.startswith(ROOT) and not file.endswith("transformers/cache_utils.py"):
            return None
        if event == "line":
            count += 1
            if count == number:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        act()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)
    return False


@pytest.mark.parametrize("name", ["GPT-2", CACHED])
def test_an_interrupt_at_any_line_never_changes_the_next_reply(encoder, name):
    """The row is extended, cut and grown; then an interrupt comes at each of the lines in turn."""
    pair = Pair(talkative(name, encoder), encoder)
    first = [Turn("user", " ".join(WORDS[:6]))]
    other = [Turn("user", " ".join(WORDS[:5])), Turn("assistant", "So"), Turn("user", "Yes?")]
    last = [Turn("user", " ".join(WORDS[:7]))]
    few = SAMPLED.model_copy(update={"max_new_tokens": 3})
    pair.reply(first, few)
    pair.reply(other, few)  # proves the forward passes
    pair.plain.drop_kept_row()
    expected = pair.plain.stream(last, few, seed=1)
    number, reused = 0, set()
    while True:
        number += 1 if number < 80 else 5
        pair.kept.stream(first, few, seed=0)
        if not interrupted_at(number, lambda: pair.kept.stream(other, few, seed=0)):
            break
        reply = pair.kept.stream(last, few, seed=1)
        assert reply == expected, f"after an interrupt at line {number}"
        reused.add(reply.trace.num_reused)
    assert number > 100
    assert max(reused) > 5


def test_a_signal_in_the_middle_of_a_pass_never_changes_the_next_reply(pair):
    """The signals of a real Ctrl-C come at random instants of a long reply."""
    history = [Turn("user", "Hello there")]
    long = SAMPLED.model_copy(update={"max_new_tokens": 60})
    draws = random.Random(0)
    pair.plain.drop_kept_row()
    expected = pair.plain.stream(history, GREEDY)
    before = signal.signal(signal.SIGALRM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    num_stopped = 0
    try:
        for seed in range(15):
            try:
                signal.setitimer(signal.ITIMER_REAL, draws.uniform(0.001, 0.015))
                for attempt in range(50):
                    pair.kept.stream([Turn("user", "Hello")], long, seed=seed + 100 * attempt)
            except KeyboardInterrupt:
                num_stopped += 1
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            assert pair.kept.stream(history, GREEDY) == expected
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
        signal.signal(signal.SIGINT, previous)
    assert num_stopped > 10


# Memory and weights


def test_new_weights_are_never_mixed_with_a_row_of_old_ones(encoder):
    pair = Pair(talkative("Llama", encoder), encoder)
    history = [Turn("user", "Hello there")]
    pair.reply(history, GREEDY)
    rows = weakref.ref(pair.kept._kept._rows)
    with torch.no_grad():
        for weight in pair.kept.model.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    pair.read = []
    pair.reply([*history, Turn("assistant", "Yes"), Turn("user", "And now?")], GREEDY)
    assert pair.num_reused == [0, 0]
    gc.collect()
    assert rows() is None


def test_only_streams_keep_a_row_and_it_can_be_freed(encoder):
    generator = Generator(talkative("Llama", encoder), encoder)
    history = [Turn("user", "Hello there")]
    generator.replies([history], GREEDY)
    assert generator._kept is None
    first = generator.stream(history, GREEDY)
    rows = weakref.ref(generator._kept._rows)
    generator.replies([history] * 3, GREEDY)
    assert generator.stream(history, GREEDY).trace.num_reused == first.trace.prompt_length - 1
    generator.drop_kept_row()
    gc.collect()
    assert rows() is None
    assert generator.stream(history, GREEDY) == first


def test_a_model_whose_rows_cannot_be_extended_keeps_none(encoder):
    generator = Generator(talkative("Mistral with a sliding window", encoder), encoder)
    history = [Turn("user", "Hello there")]
    for _ in range(2):
        reply = generator.stream(history, GREEDY)
    assert generator._kept._rows is None
    assert reply.trace.num_reused == 0


def test_the_trace_has_the_probability_of_each_token_before_sampling(encoder):
    generator = Generator(talkative("Llama", encoder), encoder)
    history = [Turn("user", "Hello there")]
    for settings in (GREEDY, SAMPLED.model_copy(update={"max_new_tokens": 40})):
        for seed in range(3):
            reply = generator.stream(history, settings, seed=seed)
            prompt = generator.query(history, settings).ids
            row = torch.tensor([[*prompt, *reply.ids]])
            with torch.inference_mode():
                logits = generator.model(row).logits[0, len(prompt) - 1 : -1]
            each = logits.softmax(-1)[range(len(reply.ids)), list(reply.ids)].tolist()
            assert reply.trace.probabilities == pytest.approx(each, rel=10 * TIE)
            assert 0 < reply.trace.first_token_seconds <= reply.trace.seconds
    assert generator.replies([history], GREEDY)[0].trace is None
