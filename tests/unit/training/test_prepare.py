"""From files to an encoder and stores: what is added, what is left out, and what is refused by its line."""

from __future__ import annotations

import json

import pytest

from convo_cli.data.store import ASSISTANT_TARGET, USER_TARGET
from convo_cli.errors import DataError, ModelError
from convo_cli.events import Notice, Progress
from convo_cli.runs.provenance import read_data_files
from convo_cli.training.cache import Cache
from convo_cli.training.preflight import PreflightError
from convo_cli.training.prepare import _one_ahead, build_encoder, prepare_data
from tests.conftest import SAMPLE_DATA


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


@pytest.fixture
def build(tmp_path, events):
    def build_with_cache(config):
        return build_encoder(
            config, read_data_files(config.data), Cache(tmp_path / "runs", events.append), events.append
        )

    return build_with_cache


def test_a_new_tokenizer_has_the_templates_tokens_and_stops_and_pads_with_its_end(tiny_config, build, events):
    made = build(tiny_config(tokenizer={"vocab_size": 629}))
    tokenizer = made.encoder.tokenizer
    assert made.spiece is not None
    assert made.num_new_tokens == 4
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|end|>", "<|end|>")
    assert made.encoder.pad_id == made.encoder.stop_ids[0]
    assert made.encoder.max_length == 128
    assert notices(events) == ["dialogue.template: auto is turns here"]


def test_a_vocabulary_smaller_than_asked_for_is_told(tiny_config, build, events):
    made = build(tiny_config(tokenizer={"vocab_size": 90_000}))
    pieces = len(made.encoder.tokenizer) - made.num_new_tokens
    assert f"tokenizer.vocab_size is 90000, but the training text gives only {pieces} pieces" in notices(events)


def test_a_new_tokenizer_is_trained_once_for_the_same_text_and_settings(tiny_config, build, events):
    stage = Progress("training the tokenizer", 0)
    first, again = build(tiny_config()), build(tiny_config(training={"max_steps": 9}))
    assert first.spiece == again.spiece
    assert events.count(stage) == 1
    build(tiny_config(tokenizer={"vocab_size": 640}))
    build(tiny_config(data={"train": str(SAMPLE_DATA / "test.jsonl")}))
    assert events.count(stage) == 3


def test_a_pretrained_tokenizer_keeps_its_own_ids_and_tokens(tiny_config, build, make_encoder, tmp_path):
    tokenizer = make_encoder("chatml").tokenizer
    tokenizer.chat_template = make_encoder("chatml").template.chat_template
    tokenizer.save_pretrained(tmp_path)
    config = tiny_config(model={"pretrained": str(tmp_path), "scratch": None})
    made = build(config)
    assert (made.spiece, made.num_new_tokens, made.encoder.template.name) == (None, 0, "native")
    assert made.encoder.tokenizer.get_vocab() == tokenizer.get_vocab()


# The stores


@pytest.fixture
def prepare(tmp_path, events):
    """Prepare data as `train` does, with a cache in the test's folder."""

    def prepare_with_cache(config, encoder):
        cache = Cache(tmp_path / "runs", events.append)
        return prepare_data(config, read_data_files(config.data), encoder, cache, events.append)

    return prepare_with_cache


def of(path, **data):
    """The data section for one file."""
    return {"train": path, "validation": (), **data}


def test_every_dialogue_is_encoded_in_order_and_counted(tiny_config, prepare, events, make_encoder, write):
    path = write(["Hello", "Hi!"], ["How are you?", "Fine.", "Good"])
    encoder = make_encoder()
    store = prepare(tiny_config(data=of([path, path])), encoder).train
    assert (store.num_dialogues, len(store)) == (4, 4)
    assert encoder.decode(store[0].input_ids.tolist()) == "HelloHi!"
    assert store[0].input_ids.tolist() == store[2].input_ids.tolist()
    assert [store.where(k, [path, path]) for k in range(4)] == [f"{path}:{line}" for line in (1, 2, 1, 2)]
    assert events == [Progress("encoding training data", 4, 4)]


def test_no_more_than_max_dialogues_are_encoded(tiny_config, prepare, make_encoder, write):
    path = write(["Hello", "Hi!"], ["How are you?", "Fine."], ["not", "read"])
    config = tiny_config(data={"train": path, "validation": path}, evaluation={"max_dialogues": 2})
    data = prepare(config, make_encoder())
    assert (data.train.num_dialogues, data.validation.num_dialogues) == (3, 2)


def test_the_second_time_nothing_is_encoded_and_every_array_is_the_same(tiny_config, prepare, events, make_encoder):
    first = prepare(tiny_config(), make_encoder())
    assert any(isinstance(event, Progress) for event in events)
    events.clear()
    again = prepare(tiny_config(training={"learning_rate": 0.1}), make_encoder())
    assert not any(isinstance(event, Progress) for event in events)
    for one, other in ((first.train, again.train), (first.validation, again.validation)):
        for column in ("input_ids", "targets", "offsets", "dialogue_of", "dialogues"):
            assert (getattr(one, column)[:] == getattr(other, column)[:]).all()


@pytest.mark.parametrize(
    ("changes", "encoder"),
    [
        ({"dialogue": {"train_on": "all"}}, {}),
        ({"dialogue": {"train_on": "last"}}, {}),
        ({"dialogue": {"user_turns_until": 0.5}}, {}),
        ({"data": {"first_speaker": "assistant"}}, {}),
        ({"data": {"speakers": {"user": ["user", "human", "somebody"]}}}, {}),
        ({"data": {"train": str(SAMPLE_DATA / "train.jsonl")}}, {}),
        ({}, {"name": "chatml"}),
        ({}, {"max_length": 100}),
    ],
)
def test_whatever_decides_ids_or_targets_is_part_of_the_key(
    tiny_config, prepare, events, make_encoder, changes, encoder
):
    prepare(tiny_config(), make_encoder())
    events.clear()
    prepare(tiny_config(**changes), make_encoder(**encoder))
    assert Progress("encoding training data", 188 if "train" in changes.get("data", {}) else 25, None) in [
        Progress(event.stage, event.done) for event in events if isinstance(event, Progress)
    ]


def test_validation_data_found_in_training_is_told(tiny_config, prepare, events, make_encoder, write):
    train = write(["Hello", "Hi!"], ["How are you?", "Fine."])
    valid = write(["Bye", "Bye!"], ["hello", "HI!"], name="valid.jsonl")
    prepare(tiny_config(data={"train": train, "validation": valid}), make_encoder())
    (warning,) = [event.message for event in events if isinstance(event, Notice) and event.is_warning]
    assert warning.startswith("1 of 2 validation dialogues are also in the training data")
    assert f"{valid}:2 is {train}:1" in warning


LONG = ["Tell me all. " * 4, "Yes."] + ["And what else is there to say about it, please? " * 2] * 4 + ["That is all."]


def test_windows_without_a_target_are_left_out_where_nothing_will_ever_learn_them(
    tiny_config, prepare, make_encoder, write
):
    roles = ["user", "assistant", "user", "user", "user", "user", "assistant"]
    data = of(write(messages(*zip(roles, LONG, strict=True))))
    encoder = make_encoder(max_length=48)
    stores = {}
    for key, dialogue in {
        "assistant": {}, "last": {"train_on": "last"}, "all": {"train_on": "all"}, "users": {"user_turns_until": 0.5},
    }.items():  # fmt: skip
        stores[key] = prepare(tiny_config(dialogue=dialogue, data=data), encoder).train
    assert [len(stores[key]) for key in ("last", "assistant")] == [1, 2]
    assert len(stores["all"]) == len(stores["users"]) > 3
    for store in stores.values():
        assert all(store[index].targets.any() for index in range(len(store)))
        assert store.num_dialogues == 1
    assert [store.num_targets(USER_TARGET) > 0 for store in stores.values()] == [False, False, True, True]
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
    tiny_config, prepare, make_encoder, write, train_on, dialogue
):
    config = tiny_config(dialogue={"train_on": train_on}, data=of(write(["Hello", "Hi!"], dialogue)))
    with pytest.raises(PreflightError, match=r"1 error\n.*data\.jsonl:2:1 \$ no turn of the dialogue is trained on"):
        prepare(config, make_encoder())


def test_all_problems_of_all_files_are_refused_together(tiny_config, prepare, make_encoder, write, tmp_path):
    train = write(*[["Anybody?"]] * 300, ["Hello", "very " * 200], ["Hello", "Hi!"])
    valid = write(["Hello?"], name="valid.jsonl")
    with pytest.raises(PreflightError, match="the data cannot be trained on: 302 errors") as caught:
        prepare(tiny_config(data={"train": train, "validation": valid}), make_encoder(max_length=64))
    counts = [(group.code, group.count, group.problems[0].line) for group in caught.value.groups]
    assert counts == [("no-target", 300, 1), ("turn-too-long", 1, 301), ("no-target", 1, 1)]
    assert caught.value.message.count("data.jsonl:") == 6
    assert not (tmp_path / "runs").exists(), "what is refused is not kept"


def test_a_turn_longer_than_the_window_is_refused_by_its_line(tiny_config, prepare, make_encoder, write):
    path = write(["Hello", "Hi!"], ["Hello", "very " * 200])
    with pytest.raises(
        PreflightError, match=r"data\.jsonl:2:1 \$ a turn of \d+ tokens does not fit into dialogue\.max_length 64"
    ):
        prepare(tiny_config(data=of(path)), make_encoder(max_length=64))


def test_a_template_that_has_no_place_for_a_turn_is_refused_by_its_line(tiny_config, prepare, make_encoder, write):
    path = write(["Hello", "Hi!"], messages(("system", "Be nice."), ("user", "Hi"), ("assistant", "Hi")))
    with pytest.raises(PreflightError, match=r"data\.jsonl:2:1 \$ template convmodel has no place for a system turn"):
        prepare(tiny_config(data=of(path)), make_encoder("convmodel"))


def test_a_template_that_transformers_would_render_otherwise_is_refused(tiny_config, prepare, make_encoder, write):
    encoder = make_encoder()
    broken = encoder.template.chat_template.replace("<|end|>", "<|user|>")
    object.__setattr__(encoder.template, "chat_template", broken)
    with pytest.raises(ModelError, match="template turns does not fit this tokenizer"):
        prepare(tiny_config(data=of(write(["Hello", "Hi!"]))), encoder)


def test_a_tokenizer_that_changes_texts_is_told(tiny_config, prepare, events, make_encoder, write):
    from tokenizers import normalizers
    from transformers import PreTrainedTokenizerFast

    from convo_cli.text.encoder import DialogueEncoder
    from convo_cli.text.template import make_template

    before = make_encoder().tokenizer
    backend = before.backend_tokenizer
    backend.normalizer = normalizers.Lowercase()
    lower = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>", pad_token="<|end|>")
    encoder = DialogueEncoder(lower, make_template("turns", lower), max_length=64)
    prepare(tiny_config(data=of(write(["Hello", "hi!"]))), encoder)
    (warning,) = [event.message for event in events if isinstance(event, Notice) and event.is_warning]
    assert "data.jsonl:1 says 'Hello', the model will read 'hello' (1 of the first turns differ)" in warning


def test_chunks_made_ahead_are_the_same_and_an_error_among_them_comes_in_its_place():
    def items():
        yield from ([1], [2], [3])
        raise DataError("the fourth")

    taken = []
    with pytest.raises(DataError, match="the fourth"):
        taken.extend(_one_ahead(items()))
    assert taken == [[1], [2], [3]]


def test_chunks_are_made_no_more_than_one_ahead():
    made = []

    def items():
        for number in range(1, 10):
            made.append(number)
            yield [number]

    ahead = _one_ahead(items())
    assert next(ahead) == [1]
    ahead.close()  # waits for the one that is under way
    assert made == [1, 2]
