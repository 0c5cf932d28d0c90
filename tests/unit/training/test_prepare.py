"""From files to an encoder and stores: what is added, what is left out, and what is refused by its line."""

from __future__ import annotations

import json

import pytest

from convo_cli.data.store import ASSISTANT_TARGET, USER_TARGET
from convo_cli.errors import DataError, ModelError
from convo_cli.events import Notice, Progress
from convo_cli.training.prepare import build_encoder, encode_files


@pytest.fixture
def events():
    return []


@pytest.fixture
def write(tmp_path):
    def write_lines(*dialogues, name="data.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(dialogue) + "\n" for dialogue in dialogues))
        return str(path)

    return write_lines


def messages(*turns):
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


def notices(events):
    return [event.message for event in events if isinstance(event, Notice)]


# The encoder


def test_a_new_tokenizer_has_the_templates_tokens_and_stops_and_pads_with_its_end(tiny_config, events):
    made = build_encoder(tiny_config(tokenizer={"vocab_size": 629}), events.append)
    tokenizer = made.encoder.tokenizer
    assert made.spiece is not None
    assert made.num_new_tokens == 4
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|end|>", "<|end|>")
    assert made.encoder.pad_id == made.encoder.stop_ids[0]
    assert made.encoder.max_length == 128
    assert notices(events) == ["dialogue.template: auto is turns here"]


def test_a_vocabulary_smaller_than_asked_for_is_told(tiny_config, events):
    made = build_encoder(tiny_config(tokenizer={"vocab_size": 90_000}), events.append)
    pieces = len(made.encoder.tokenizer) - made.num_new_tokens
    assert f"tokenizer.vocab_size is 90000, but the training text gives only {pieces} pieces" in notices(events)


def test_a_pretrained_tokenizer_keeps_its_own_ids_and_tokens(tiny_config, events, make_encoder, tmp_path):
    tokenizer = make_encoder("chatml").tokenizer
    tokenizer.chat_template = make_encoder("chatml").template.chat_template
    tokenizer.save_pretrained(tmp_path)
    config = tiny_config(model={"pretrained": str(tmp_path), "scratch": None})
    made = build_encoder(config, events.append)
    assert (made.spiece, made.num_new_tokens, made.encoder.template.name) == (None, 0, "native")
    assert made.encoder.tokenizer.get_vocab() == tokenizer.get_vocab()


# The stores


def test_every_dialogue_is_encoded_in_order_and_counted(tiny_config, events, make_encoder, write):
    path = write(["Hello", "Hi!"], ["How are you?", "Fine.", "Good"])
    encoder = make_encoder()
    store = encode_files([path, path], tiny_config(), encoder, events.append, stage="encoding")
    assert (store.num_dialogues, len(store)) == (4, 4)
    assert encoder.decode(store[0].input_ids.tolist()) == "HelloHi!"
    assert store[0].input_ids.tolist() == store[2].input_ids.tolist()
    assert events == [Progress("encoding", 4)]


def test_no_more_than_max_dialogues_are_encoded(tiny_config, ignore, make_encoder, write):
    path = write(["Hello", "Hi!"], ["How are you?", "Fine."], ["not", "read"])
    store = encode_files([path], tiny_config(), make_encoder(), ignore, stage="x", max_dialogues=2)
    assert store.num_dialogues == 2


LONG = ["Tell me all. " * 4, "Yes."] + ["And what else is there to say about it, please? " * 2] * 4 + ["That is all."]


def test_windows_without_a_target_are_left_out_where_nothing_will_ever_learn_them(
    tiny_config, ignore, make_encoder, write
):
    roles = ["user", "assistant", "user", "user", "user", "user", "assistant"]
    path = write(messages(*zip(roles, LONG, strict=True)))
    encoder = make_encoder(max_length=48)
    stores = {}
    for key, dialogue in {
        "assistant": {}, "last": {"train_on": "last"}, "all": {"train_on": "all"}, "users": {"user_turns_until": 0.5},
    }.items():  # fmt: skip
        stores[key] = encode_files([path], tiny_config(dialogue=dialogue), encoder, ignore, stage="x")
    assert [len(stores[key]) for key in ("last", "assistant")] == [1, 2]
    assert len(stores["all"]) == len(stores["users"]) > 3
    for key, store in stores.items():
        wanted = {ASSISTANT_TARGET, USER_TARGET} if key in ("all", "users") else {ASSISTANT_TARGET}
        assert all(wanted & set(store[index].targets.tolist()) for index in range(len(store)))
        assert store.num_dialogues == 1
    assert stores["assistant"].num_targets(ASSISTANT_TARGET) == stores["all"].num_targets(ASSISTANT_TARGET)


@pytest.mark.parametrize(
    ("train_on", "dialogue"),
    [
        ("assistant", messages(("user", "Hello?"), ("user", "Anybody?"))),
        (
            "last",
            {"turns": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hi", "train": False}]},
        ),
    ],
)
def test_a_dialogue_with_nothing_to_learn_is_refused_by_its_line(
    tiny_config, ignore, make_encoder, write, train_on, dialogue
):
    path = write(["Hello", "Hi!"], dialogue)
    config = tiny_config(dialogue={"train_on": train_on})
    with pytest.raises(DataError, match=r"1 dialogue has nothing to learn.*data\.jsonl:2"):
        encode_files([path], config, make_encoder(), ignore, stage="x")


def test_many_of_them_are_counted_and_a_few_are_named(tiny_config, ignore, make_encoder, write):
    path = write(*[["Anybody?"]] * 300)
    with pytest.raises(DataError, match="300 dialogues have nothing to learn") as caught:
        encode_files([path], tiny_config(), make_encoder(), ignore, stage="x")
    assert caught.value.message.count("data.jsonl:") == 5


def test_a_turn_longer_than_the_window_is_refused_by_its_line(tiny_config, ignore, make_encoder, write):
    path = write(["Hello", "Hi!"], ["Hello", "very " * 200])
    with pytest.raises(
        DataError, match=r"data\.jsonl:2: a turn of \d+ tokens does not fit into dialogue\.max_length 64"
    ):
        encode_files([path], tiny_config(), make_encoder(max_length=64), ignore, stage="x")


def test_a_template_that_transformers_would_render_otherwise_is_refused(tiny_config, ignore, make_encoder, write):
    encoder = make_encoder()
    broken = encoder.template.chat_template.replace("<|end|>", "<|user|>")
    object.__setattr__(encoder.template, "chat_template", broken)
    with pytest.raises(ModelError, match="template turns does not fit this tokenizer"):
        encode_files([write(["Hello", "Hi!"])], tiny_config(), encoder, ignore, stage="x")
