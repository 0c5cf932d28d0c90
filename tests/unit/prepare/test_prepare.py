"""From files to an encoder and stores: what is added, left out, and refused with its line."""

from __future__ import annotations

import hashlib
import json

import pytest

from convo_cli.config.schema import DataConfig
from convo_cli.data.reader import read_dialogues
from convo_cli.errors import DataError, ModelError
from convo_cli.events import Notice, Progress
from convo_cli.prepare.cache import Cache
from convo_cli.prepare.inputs import Inputs
from convo_cli.prepare.preflight import PreflightError, advice_for_long_turns, count_tokens
from convo_cli.prepare.prepare import prepare_data
from convo_cli.prepare.prepared_text import build_encoder
from convo_cli.runs.provenance.data_files import DataFiles, read_data_files
from convo_cli.text.templates.template import TEMPLATES
from convo_cli.tokens.store import ASSISTANT_TARGET, USER_TARGET, Encoded
from tests.conftest import SAMPLE_DATA
from tests.foreign import byte_pairs, fast


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


def stages(events):
    return {event.stage for event in events if isinstance(event, Progress)}


# The encoder


@pytest.fixture
def build(tmp_path, events):
    def build_with_cache(config):
        cache = Cache(tmp_path / "runs", events.append)
        return build_encoder(Inputs(config, read_data_files(config.data), cache, events.append))

    return build_with_cache


@pytest.mark.parametrize(
    ("tokens", "noticed"),
    [
        (["<sep>"], "has <sep>: if convmodel trained this model, dialogue.template: convmodel"),
        (["[CLS]", "[SEP]"], "has [CLS] and [SEP]: if multi-turn-chatbot-GPT2 trained this model"),
        (["[SEP]"], None),
        ([], None),
    ],
)
@pytest.mark.parametrize("template", ["auto", "turns"])
def test_the_template_of_a_forerunner_is_named_if_none_was_chosen(
    build, write, events, tmp_path, tiny_config, tokens, noticed, template
):
    tokenizer = fast(byte_pairs(), eos_token="<|endoftext|>")
    tokenizer.add_tokens(tokens, special_tokens=True)
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "model/config.json").write_text('{"model_type": "gpt2"}')
    data = {"train": write(["Hello", "Hi!"]), "validation": write(["Bye", "Bye!"], name="v.jsonl")}
    config = tiny_config(
        data=data,
        model={"pretrained": str(tmp_path / "model"), "scratch": None},
        dialogue={"template": template},
    )
    build(config)
    said = [notice for notice in notices(events) if "trained this model" in notice]
    expected = noticed is not None and template == "auto"
    assert (len(said) == 1 and noticed in said[0]) if expected else said == []


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_a_text_that_spells_a_named_token_is_ordinary_text(tiny_config, build, template, kind):
    config = tiny_config(
        tokenizer={"kind": kind, "vocab_size": 700}, dialogue={"template": template}
    )
    encoder = build(config).encoder
    named = [encoder.tokenizer.convert_ids_to_tokens(0), *encoder.tokenizer.all_special_tokens]
    texts = [text for token in (*named, "<s>") for text in (token, f"a{token}b {token}")]
    for text, ids in zip(texts, encoder.text_ids(texts), strict=True):
        assert not any(encoder.is_special(token) for token in ids), text
        assert encoder.decode(ids) == text


def test_a_new_tokenizer_has_the_templates_tokens_and_stops_and_pads_with_its_end(
    tiny_config, build, events
):
    made = build(tiny_config(tokenizer={"vocab_size": 629}))
    tokenizer = made.encoder.tokenizer
    assert made.spiece is not None
    assert made.num_new_tokens == 4
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|end|>", "<|end|>")
    assert made.encoder.pad_id == made.encoder.stop_ids[0]
    assert (tokenizer.bos_token, tokenizer.unk_token) == ("<|end|>", "<unk>")
    assert made.encoder.max_length == 128
    assert notices(events) == ["template: turns, because the tokenizer has no chat template"]


def test_a_vocabulary_smaller_than_asked_for_is_told(tiny_config, build, events):
    made = build(tiny_config(tokenizer={"vocab_size": 90_000}))
    pieces = len(made.encoder.tokenizer) - made.num_new_tokens
    expected = (
        f"the vocabulary has {pieces:,} tokens instead of 90,000 (tokenizer.vocab_size), because "
        "there is not enough training text for more"
    )
    assert expected in notices(events)


def test_a_new_tokenizer_is_trained_once_for_the_same_text_and_settings(tiny_config, build, events):
    stage = Progress("training the tokenizer", 0)
    first, again = build(tiny_config()), build(tiny_config(training={"max_steps": 9}))
    assert first.spiece == again.spiece
    assert events.count(stage) == 1
    build(tiny_config(tokenizer={"vocab_size": 640}))
    build(tiny_config(data={"train": str(SAMPLE_DATA / "test.jsonl")}))
    assert events.count(stage) == 3


def test_a_pretrained_tokenizer_keeps_its_own_ids_and_tokens(
    tiny_config, build, make_encoder, tmp_path
):
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
        return prepare_data(
            Inputs(config, read_data_files(config.data), cache, events.append), encoder
        )

    return prepare_with_cache


def of(path, **data):
    """The data section for one file."""
    return {"train": path, "validation": (), **data}


def test_every_dialogue_is_encoded_in_order_and_counted(
    tiny_config, prepare, events, make_encoder, write
):
    path = write(["Hello", "Hi!"], ["How are you?", "Fine.", "Good"])
    encoder = make_encoder()
    store = prepare(tiny_config(data=of([path, path])), encoder).train
    assert (store.num_dialogues, len(store)) == (4, 4)
    assert encoder.decode(store[0].input_ids.tolist()) == "HelloHi!"
    assert store[0].input_ids.tolist() == store[2].input_ids.tolist()
    assert [store.where(k, [path, path]) for k in range(4)] == [
        f"{path}:{line}" for line in (1, 2, 1, 2)
    ]
    assert events == [Progress("encoding training data", done, 4, "dialogues") for done in (0, 4)]


def test_no_more_than_max_dialogues_are_encoded(tiny_config, prepare, make_encoder, write):
    path = write(["Hello", "Hi!"], ["How are you?", "Fine."], ["not", "read"])
    config = tiny_config(data={"train": path, "validation": path}, evaluation={"max_dialogues": 2})
    data = prepare(config, make_encoder())
    assert (data.train.num_dialogues, data.validation.num_dialogues) == (3, 2)


def test_the_second_time_nothing_is_encoded_and_every_array_is_the_same(
    tiny_config, prepare, events, make_encoder
):
    first = prepare(tiny_config(), make_encoder())
    assert "encoding training data" in stages(events)
    events.clear()
    again = prepare(tiny_config(training={"learning_rate": 0.1}), make_encoder())
    assert stages(events) == {"verifying the prepared data"}
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
        ({"data": {"speakers": {"keep_names": True}}}, {}),
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
    assert Progress(
        "encoding training data", 188 if "train" in changes.get("data", {}) else 25, None
    ) in [Progress(event.stage, event.done) for event in events if isinstance(event, Progress)]


def test_the_mapping_of_lines_is_part_of_the_key(tiny_config, tmp_path, ignore):
    no_files, cache = DataFiles((), ()), Cache(tmp_path, ignore)
    changes: tuple[dict[str, str], ...] = ({}, {"text": "body"}, {"system": "body"})
    configs = [tiny_config(data={"columns": columns}) for columns in changes]
    keys = [Inputs(config, no_files, cache, ignore).reading("train") for config in configs]
    assert [key in keys[:index] for index, key in enumerate(keys)] == [False, False, False]


def test_validation_data_found_in_training_is_told(
    tiny_config, prepare, events, make_encoder, write
):
    train = write(["Hello", "Hi!"], ["How are you?", "Fine."])
    valid = write(["Bye", "Bye!"], ["hello", "HI!"], name="valid.jsonl")
    prepare(tiny_config(data={"train": train, "validation": valid}), make_encoder())
    (warning,) = [
        event.message for event in events if isinstance(event, Notice) and event.is_warning
    ]
    assert warning.startswith("the training data also contains 1 of 2 validation dialogues")
    assert f"{valid}:2 is {train}:1" in warning


LONG = (
    ["Tell me all. " * 4, "Yes."]
    + ["And what else is there to say about it, please? " * 2] * 4
    + ["That is all."]
)


def test_windows_without_a_target_are_left_out_where_nothing_will_ever_learn_them(
    tiny_config, prepare, make_encoder, write
):
    roles = ["user", "assistant", "user", "user", "user", "user", "assistant"]
    data = of(write(messages(*zip(roles, LONG, strict=True))))
    encoder = make_encoder(max_length=48)
    stores = {}
    for key, dialogue in {
        "assistant": {}, "last": {"train_on": "last"}, "all": {"train_on": "all"},
        "users": {"user_turns_until": 0.5},
    }.items():  # fmt: skip
        stores[key] = prepare(tiny_config(dialogue=dialogue, data=data), encoder).train
    assert [len(stores[key]) for key in ("last", "assistant")] == [1, 2]
    assert len(stores["all"]) == len(stores["users"]) > 3
    for store in stores.values():
        assert all(store[index].targets.any() for index in range(len(store)))
        assert store.num_dialogues == 1
    assert [store.num_targets(USER_TARGET) > 0 for store in stores.values()] == [
        False,
        False,
        True,
        True,
    ]
    assert stores["assistant"].num_targets(ASSISTANT_TARGET) == stores["all"].num_targets(
        ASSISTANT_TARGET
    )


@pytest.mark.parametrize(
    ("train_on", "dialogue"),
    [
        ("assistant", messages(("user", "Hello?"), ("user", "Anybody?"))),
        (
            "last",
            {
                "turns": [
                    {"role": "user", "content": "Hi"},
                    {"role": "assistant", "content": "Hi", "train": False},
                ]
            },
        ),
    ],
)
def test_a_dialogue_with_nothing_to_learn_is_refused_by_its_line(
    tiny_config, prepare, make_encoder, write, train_on, dialogue
):
    config = tiny_config(
        dialogue={"train_on": train_on}, data=of(write(["Hello", "Hi!"], dialogue))
    )
    with pytest.raises(
        PreflightError, match=r"1 error\n.*data\.jsonl:2:1 \$ the dialogue has no turn to train on"
    ):
        prepare(config, make_encoder())


def test_all_problems_of_all_files_are_refused_together(
    tiny_config, prepare, make_encoder, write, tmp_path
):
    train = write(*[["Anybody?"]] * 300, ["Hello", "very " * 200], ["Hello", "Hi!"])
    valid = write(["Hello?"], name="valid.jsonl")
    with pytest.raises(PreflightError, match="the data cannot be trained on: 302 errors") as caught:
        prepare(
            tiny_config(data={"train": train, "validation": valid}), make_encoder(max_length=64)
        )
    counts = [(group.code, group.count, group.problems[0].line) for group in caught.value.groups]
    assert counts == [("no-target", 300, 1), ("turn-too-long", 1, 301), ("no-target", 1, 1)]
    assert caught.value.message.count("data.jsonl:") == 6
    assert caught.value.needed == 401
    assert not list((tmp_path / "runs").rglob("tokens-*")), (
        "what is refused is not taken for what can be trained on"
    )


def test_a_turn_longer_than_the_window_is_refused_by_its_line(
    tiny_config, prepare, make_encoder, write
):
    path = write(["Hello", "Hi!"], ["Hello", "very " * 200])
    with pytest.raises(
        PreflightError,
        match=r"data\.jsonl:2:1 \$ a turn of \d+ tokens does not fit into dialogue\.max_length 64",
    ):
        prepare(tiny_config(data=of(path)), make_encoder(max_length=64))


def test_a_refusal_names_the_smallest_max_length_that_fits_all_turns_of_all_files(
    tiny_config, prepare, make_encoder, write
):
    train, valid = write(["Hello", "very " * 60]), write(["so " * 90, "Hi"], name="valid.jsonl")
    config = tiny_config(data={"train": train, "validation": valid})
    with pytest.raises(PreflightError) as caught:
        prepare(config, make_encoder(max_length=32))
    needed = caught.value.needed
    assert caught.value.hint == (
        f"set dialogue.max_length: {needed}, into which all turns fit, or dialogue.long_turns: "
        "split (or drop)"
    )
    with pytest.raises(PreflightError, match="1 error"):
        prepare(config, make_encoder(max_length=needed - 1))
    assert prepare(config, make_encoder(max_length=needed)).train.num_dialogues == 1


def test_no_max_length_is_proposed_that_the_model_or_convo_cannot_have():
    fits = (
        "set dialogue.max_length: 300, into which all turns fit, or dialogue.long_turns: split "
        "(or drop)"
    )
    assert (
        advice_for_long_turns(300, None, "refuse")
        == advice_for_long_turns(300, 300, "refuse")
        == fits
    )
    assert advice_for_long_turns(300, 299, "refuse") == (
        "all turns would fit into a dialogue.max_length of 300, but the model reads at most 299: "
        "set dialogue.long_turns: split (or drop)"
    )
    assert (
        advice_for_long_turns(2**20 + 1, None, "refuse")
        == "set dialogue.long_turns: split (or drop)"
    )


def test_where_long_turns_are_split_already_no_split_is_proposed(
    tiny_config, prepare, make_encoder, write
):
    path = write(
        ["Hello", "Hi!"],
        messages(("system", "Be brief. " * 15), ("user", "Hi"), ("assistant", "so " * 30)),
    )
    config = tiny_config(dialogue={"long_turns": "split"}, data=of(path))
    with pytest.raises(PreflightError, match="leaves no room beside") as caught:
        prepare(config, make_encoder(max_length=32))
    needed = caught.value.needed
    assert caught.value.hint == (
        f"set dialogue.max_length: {needed}, at which all turns can be split, or "
        "dialogue.long_turns: drop"
    )
    assert prepare(config, make_encoder(max_length=needed)).train.num_dialogues == 2
    assert advice_for_long_turns(300, 299, "split") == (
        "all turns could be split at a dialogue.max_length of 300, but the model reads at most "
        "299: "
        "set dialogue.long_turns: drop"
    )


# Long turns, and what was encoded before


MIXED = [
    ["Hello", "Hi!"],
    ["Tell me all of it.", "very " * 70],
    ["What is " * 40 + "this?", "A long question.", "Yes?", "It is."],
    *(["How are you today?", "I am fine, thank you."] * number for number in range(1, 5)),
    messages(("system", "Be brief."), ("user", "Hi"), ("assistant", "so " * 30)),
]


def test_drop_leaves_dialogues_with_a_long_turn_out_and_names_their_lines(
    tiny_config, prepare, events, make_encoder, write
):
    path = write(*MIXED)
    config = tiny_config(dialogue={"long_turns": "drop"}, data=of(path))
    for again in (False, True):
        events.clear()
        store = prepare(config, make_encoder(max_length=64)).train
        (warning,) = [
            event.message for event in events if isinstance(event, Notice) and event.is_warning
        ]
        assert warning == (
            "left out 2 of 8 training dialogues, because a turn is too long for "
            "dialogue.max_length 64: "
            f"{path}:2, {path}:3"
        ), again
        counts = count_tokens(store, 64)
        assert (counts.num_dialogues, counts.num_left_out, counts.num_split) == (6, 2, 0)
        assert set(store.dialogue_of.tolist()) == {0, 3, 4, 5, 6, 7}


def test_where_all_dialogues_are_left_out_that_is_an_error(
    tiny_config, prepare, make_encoder, write
):
    config = tiny_config(dialogue={"long_turns": "drop"}, data=of(write(["Hello", "very " * 70])))
    with pytest.raises(DataError, match="left out 1 of 1 training dialogues") as caught:
        prepare(config, make_encoder(max_length=32))
    assert caught.value.hint == "raise dialogue.max_length, or set dialogue.long_turns: split"


def test_split_trains_on_every_target_and_counts_the_dialogues(
    tiny_config, prepare, make_encoder, write
):
    path = write(*MIXED)
    whole = prepare(tiny_config(data=of(path)), make_encoder(max_length=4096)).train
    store = prepare(
        tiny_config(dialogue={"long_turns": "split"}, data=of(path)), make_encoder(max_length=64)
    ).train
    counts = count_tokens(store, 64)
    assert (counts.num_dialogues, counts.num_left_out, counts.num_split) == (8, 0, 2)
    assert store.num_targets(ASSISTANT_TARGET) == whole.num_targets(ASSISTANT_TARGET)
    assert store.lengths.max() <= 64
    assert store.dialogues["num_tokens"].tolist() == whole.dialogues["num_tokens"].tolist()


def test_no_other_dialogue_is_compared_with_one_that_is_left_out(
    tiny_config, prepare, events, make_encoder, write
):
    long = ["Hello", "very " * 70]
    train, valid = write(["Hello", "Hi!"], long), write(long, ["Bye", "Bye!"], name="valid.jsonl")
    config = tiny_config(
        dialogue={"long_turns": "drop"}, data={"train": train, "validation": valid}
    )
    prepare(config, make_encoder(max_length=32))
    assert not any("the training data also contains" in message for message in notices(events))


@pytest.fixture
def counted(make_encoder, monkeypatch):
    """A maker of encoders, and the lines of the dialogues that they were asked to encode."""
    from convo_cli.text.encoder import DialogueEncoder

    lines = []
    encode_all = DialogueEncoder.encode_all

    def count(self, dialogues, *arguments):
        dialogues = list(dialogues)
        lines.extend(dialogue.line for dialogue in dialogues)
        return encode_all(self, dialogues, *arguments)

    monkeypatch.setattr(DialogueEncoder, "encode_all", count)
    return make_encoder, lines


SETTINGS = [(length, mode) for length in (40, 64, 4096) for mode in ("refuse", "split", "drop")]


@pytest.mark.parametrize("before", SETTINGS)
@pytest.mark.parametrize("now", SETTINGS)
def test_only_what_another_setting_changes_is_encoded_again_and_the_store_is_the_same(
    tiny_config, counted, write, tmp_path, ignore, before, now
):
    make_encoder, lines = counted
    path = write(*MIXED)

    def store(home, max_length, long_turns):
        config = tiny_config(dialogue={"long_turns": long_turns}, data=of(path))
        lines.clear()
        try:
            cache = Cache(tmp_path / home, ignore)
            inputs = Inputs(config, read_data_files(config.data), cache, ignore)
            prepare_data(inputs, make_encoder(max_length=max_length))
        except PreflightError as error:
            return str(error), [group.problems for group in error.groups]
        return {
            file.name: file.read_bytes()
            for file in next(
                (tmp_path / home).rglob(f"tokens-*{_variant(max_length, long_turns)}")
            ).iterdir()
        }

    store("shared", *before)
    assert sorted(lines) == list(range(1, 9))
    made = store("shared", *now)
    again = [*lines]
    assert made == store("fresh", *now)
    whole = prepare_whole_lengths(make_encoder, path)
    if before == now:
        assert again == (
            []
            if now != (40, "refuse") and now != (64, "refuse")
            else _long(make_encoder, path, now[0])
        )
    elif before[0] == now[0]:
        assert again == _long(make_encoder, path, now[0])
    else:
        assert again == [
            line for line, length in enumerate(whole, 1) if length > min(before[0], now[0])
        ]


def prepare_whole_lengths(make_encoder, path):
    encoder = make_encoder(max_length=4096)
    return [one.num_tokens for one in _encoded(encoder, path)]


def _long(make_encoder, path, max_length):
    """The lines of the dialogues with a turn that fits no window."""
    found = _encoded(make_encoder(max_length=max_length), path)
    return [line for line, one in enumerate(found, 1) if not isinstance(one, Encoded)]


def _encoded(encoder, path):
    return encoder.encode_all(list(read_dialogues([path], DataConfig(train=(path,)))))


def _variant(max_length, long_turns):
    variant = json.dumps(
        {"max_length": max_length, "long_turns": long_turns}, sort_keys=True, indent=1
    )
    return hashlib.sha256(variant.encode()).hexdigest()[:16]


def test_a_template_that_has_no_place_for_a_turn_is_refused_by_its_line(
    tiny_config, prepare, make_encoder, write
):
    path = write(
        ["Hello", "Hi!"], messages(("system", "Be nice."), ("user", "Hi"), ("assistant", "Hi"))
    )
    with pytest.raises(
        PreflightError,
        match=r"data\.jsonl:2:1 \$ template convmodel has no place for a system turn",
    ):
        prepare(tiny_config(data=of(path)), make_encoder("convmodel"))


def test_a_template_that_transformers_would_render_otherwise_is_refused(
    tiny_config, prepare, make_encoder, write
):
    encoder = make_encoder()
    broken = encoder.template.chat_template.replace("<|end|>", "<|user|>")
    object.__setattr__(encoder.template, "chat_template", broken)
    with pytest.raises(ModelError, match="template turns does not fit this tokenizer"):
        prepare(tiny_config(data=of(write(["Hello", "Hi!"]))), encoder)


def test_a_tokenizer_that_changes_texts_is_told(tiny_config, prepare, events, make_encoder, write):
    from tokenizers import normalizers
    from transformers import PreTrainedTokenizerFast

    from convo_cli.text.encoder import DialogueEncoder
    from convo_cli.text.templates.template import make_template

    before = make_encoder().tokenizer
    backend = before.backend_tokenizer
    backend.normalizer = normalizers.Lowercase()
    lower = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|end|>", pad_token="<|end|>"
    )
    encoder = DialogueEncoder(lower, make_template("turns", lower), max_length=64)
    prepare(tiny_config(data=of(write(["Hello", "hi!"]))), encoder)
    (warning,) = [
        event.message for event in events if isinstance(event, Notice) and event.is_warning
    ]
    assert (
        'data.jsonl:1 says "Hello", but the model will read "hello" (1 turn of the first dialogues)'
        in warning
    )
