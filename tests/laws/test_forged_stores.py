"""A forged token store is refused and created again, so every index in an opened store is valid.

Anyone who can write into the cache can seal it again, so every forged store here has a valid seal.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convo_cli.data.dialogue import Dialogue, Turn
from convo_cli.data.held_out.references import reference_index
from convo_cli.errors import CheckpointError
from convo_cli.events import Notice
from convo_cli.prepare.cache import NAME, Cache
from convo_cli.prepare.inputs import Inputs
from convo_cli.prepare.prepare import prepare_data
from convo_cli.prepare.prepared_text import build_encoder
from convo_cli.prepare.reply_dialogues import find_reply_dialogues
from convo_cli.runs.provenance.data_files import read_data_files
from convo_cli.tokens.store import LEFT_OUT, Encoded, Example, TokenStore
from convo_cli.tokens.store_check import require_valid_store
from convo_cli.tokens.store_writer import write
from tests.cases import num_examples
from tests.sealed import seal_again

NUM_IDS, MAX_LENGTH, FILES = 50, 6, ("a.jsonl", "b.jsonl")
NUMBERS = {"input_ids": "<i4", "targets": "u1", "offsets": "<i8", "dialogue_of": "<i8"}
WIDE = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-8, 64),
    st.sampled_from([2**31, 2**32, 2**62, -(2**31), -(2**63)]),
)

example = st.lists(
    st.tuples(st.integers(0, NUM_IDS - 1), st.sampled_from([0, 1, 2])), min_size=1, max_size=5
).map(
    lambda pairs: Example(
        np.array([0, *(i for i, _ in pairs)], np.int32),
        np.array([0, *(t for _, t in pairs[1:]), 1], np.uint8),
    )
)
dialogue = st.builds(
    lambda line, file, windows, is_left_out: (
        Dialogue((Turn("user", "a"),), line, file),
        LEFT_OUT if is_left_out else Encoded(windows, 9),
    ),
    st.integers(1, 2**40),
    st.sampled_from(FILES),
    st.lists(example, min_size=1, max_size=3),
    st.booleans(),
)


def open_checked(folder):
    store = TokenStore.open(folder)
    require_valid_store(store, num_ids=NUM_IDS, max_length=MAX_LENGTH, num_files=len(FILES))
    return store


def read_all(store):
    """Every way in which training reads a store."""
    for index in range(len(store)):
        one = store[index]
        assert 1 < len(one.input_ids) == len(one.targets) <= MAX_LENGTH
        assert 0 <= one.input_ids.min() <= one.input_ids.max() < NUM_IDS
        assert set(one.targets.tolist()) <= {0, 1, 2}
        assert one.targets[1:].any()
        assert store.where(int(store.dialogue_of[index]), FILES)
    assert sum(store.lengths) == store.num_tokens
    assert store.num_dialogues <= len(store.dialogues)


@pytest.fixture
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("stores")


def written(dialogues, folder):
    shutil.rmtree(folder)
    folder.mkdir()
    write([TokenStore.build(dialogues, FILES)], folder)
    return folder


@given(dialogues=st.lists(dialogue, min_size=1, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_store_of_the_encoder_is_accepted(dialogues, folder):
    read_all(open_checked(written(dialogues, folder)))


@given(
    dialogues=st.lists(dialogue, min_size=1, max_size=4),
    name=st.sampled_from(sorted(NUMBERS)),
    value=WIDE,
    data=st.data(),
)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=num_examples(300)
)
def test_a_forged_number_is_refused_or_valid(dialogues, name, value, data, folder):
    file = written(dialogues, folder) / name
    numbers = np.fromfile(file, NUMBERS[name])
    if len(numbers):
        index = data.draw(st.integers(0, len(numbers) - 1))
        numbers[index : index + 1] = np.array([value], np.int64).astype(numbers.dtype)
        numbers.tofile(file)
    try:
        store = open_checked(folder)
    except CheckpointError as refusal:
        assert str(refusal)  # noqa: PT017
    else:
        read_all(store)


@given(
    dialogues=st.lists(dialogue, min_size=1, max_size=4),
    name=st.sampled_from([*sorted(NUMBERS), "dialogues"]),
    content=st.one_of(st.binary(max_size=80), st.integers(1, 60)),
)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=num_examples(300)
)
def test_a_file_of_any_bytes_or_length_is_refused_or_valid(dialogues, name, content, folder):
    file = written(dialogues, folder) / name
    before = file.read_bytes()
    file.write_bytes(content if isinstance(content, bytes) else before[:-content])
    try:
        store = open_checked(folder)
    except CheckpointError:
        return
    read_all(store)


@pytest.mark.parametrize(
    ("name", "index", "value"),
    [
        ("input_ids", 3, NUM_IDS),
        ("input_ids", 3, -1),
        ("input_ids", -1, 2**31 - 1),
        ("targets", 3, 3),
        ("targets", 3, 255),
        ("targets", 0, 1),
        ("offsets", 0, 1),
        ("offsets", -1, 10**12),
        ("offsets", -1, -1),
        ("offsets", 1, 0),
        ("dialogue_of", 0, -1),
        ("dialogue_of", -1, 10**9),
        ("dialogues", "file", 2),
        ("dialogues", "file", -1),
        ("dialogues", "line", 0),
        ("dialogues", "num_tokens", -5),
        ("dialogues", "num_tokens", 0),
        ("dialogue_of", 1, 0),
    ],
)
def test_each_kind_of_forgery_is_refused(folder, name, index, value):
    """Two examples of four tokens, each of a dialogue of its own."""
    one = Example(np.arange(4, dtype=np.int32), np.array([0, 0, 0, 1], np.uint8))
    two = [(Dialogue((Turn("user", "a"),), line, FILES[0]), Encoded([one], 4)) for line in (1, 2)]
    file = written(two, folder) / name
    open_checked(folder)
    numbers = np.fromfile(file, NUMBERS.get(name) or TokenStore.build([]).dialogues.dtype)
    if isinstance(index, str):
        numbers[index][0] = value
    else:
        numbers[index] = value
    numbers.tofile(file)
    with pytest.raises(CheckpointError, match="^(dialogues|" + name + "): "):
        open_checked(folder)


# A whole cache


def prepare(config, emit):
    inputs = Inputs(
        config, read_data_files(config.data), Cache(Path(config.output_dir), emit), emit
    )
    encoder = build_encoder(inputs).encoder
    return encoder, prepare_data(inputs, encoder)


def content(data):
    """All that is in both stores, in memory."""
    names = ("input_ids", "targets", "offsets", "dialogue_of", "dialogues")
    return [
        getattr(store, name)[:].tolist()
        for store in (data.train, data.validation)
        for name in names
    ]


FORGERIES = {
    "an id that no token has": lambda folder: np.full(10**5, 10**6, "<i4").tofile(
        folder / "input_ids"
    ),
    "no example": lambda folder: [
        (folder / name).write_bytes(b"") for name in ("input_ids", "targets", "dialogue_of")
    ],
    "nothing": lambda folder: [
        file.write_bytes(b"") for file in folder.iterdir() if file.suffix == ""
    ],
    "a missing file": lambda folder: (folder / "offsets").unlink(),
    "omissions that are no JSON": lambda folder: (folder / "omissions.json").write_bytes(b"\xff{"),
    "omissions of other files": lambda folder: (folder / "omissions.json").write_bytes(b"[]"),
    "omissions of another type": lambda folder: (folder / "omissions.json").write_bytes(b'["no"]'),
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
def test_a_forged_store_is_created_again_with_a_warning_and_not_used_by_other_runs(
    tiny_config, tmp_path, forge
):
    events = []
    config = tiny_config()
    encoder, data = prepare(config, events.append)
    before = content(data)
    stores = sorted((tmp_path / "runs" / NAME).glob("tokens-*[0-9a-f]"))
    assert len(stores) == 2
    for folder in stores:
        forge(folder)
        seal_again(folder)
    other = tiny_config(dialogue={"max_length": 120})
    _, related = prepare(other, events.append)
    assert related.train.input_ids[:].max() < len(encoder.tokenizer)

    events.clear()
    _, after = prepare(config, events.append)
    warnings = [event.message for event in events if isinstance(event, Notice) and event.is_warning]
    assert [message for message in warnings if "preparing the data again" in message] == warnings
    assert len(warnings) == 2
    assert content(after) == before


def test_a_store_that_is_shorter_than_the_data_gives_no_dialogue_beyond_its_end(
    tiny_config, tmp_path
):
    events = []
    prepare(tiny_config(), events.append)
    example = Example(np.arange(4, dtype=np.int32), np.array([0, 0, 0, 1], np.uint8))
    for folder in (tmp_path / "runs" / NAME).glob("tokens-*[0-9a-f]"):
        one = [(Dialogue((Turn("user", "a"),), 99, "x"), Encoded([example], 4))]
        write([TokenStore.build(one, ["x"])], folder)
        seal_again(folder)
    _, data = prepare(tiny_config(dialogue={"max_length": 120}), events.append)
    assert len(data.train.dialogues) == 25


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x0a\x03\x0a\x01a" * 9])
def test_a_forged_tokenizer_is_created_again(tiny_config, tmp_path, content):
    events = []
    config = tiny_config()
    encoder, _ = prepare(config, events.append)
    (folder,) = (tmp_path / "runs" / NAME).glob("tokenizer-*[0-9a-f]")
    (folder / "spiece.model").write_bytes(content)
    seal_again(folder)
    events.clear()
    again, _ = prepare(config, events.append)
    assert again.tokenizer.get_vocab() == encoder.tokenizer.get_vocab()
    assert [
        "preparing the data again" in event.message
        for event in events
        if getattr(event, "is_warning", False)
    ] == [True]


def test_a_tokenizer_with_too_many_tokens_is_created_again(tiny_config, tmp_path, spiece):
    events = []
    config = tiny_config()
    prepare(config, events.append)
    (folder,) = (tmp_path / "runs" / NAME).glob("tokenizer-*[0-9a-f]")
    (folder / "spiece.model").write_bytes(spiece)  # 900 pieces
    seal_again(folder)
    encoder, _ = prepare(config, events.append)
    assert len(encoder.tokenizer) < 720


# The dialogues that get a reply


def said(*turns):
    return json.dumps(
        [{"turns": [{"role": role, "text": text} for role, text in turns], "line": 1}]
    ).encode()


FORGED_DIALOGUES = {
    "nothing": b"",
    "no UTF-8": b'"\xff"',
    "half of a surrogate pair": said(("user", "a"), ("assistant", "\ud800")),
    "another type": b'{"turns": []}',
    "an unknown role": said(("user", "a"), ("root", "b")),
    "a text that is a number": b'[{"turns": [{"role": "user", "text": 1}]}]',
    "no turn": said(),
    "nothing to score": said(("user", "a"), ("user", "b")),
    "a turn without text": said(("user", " "), ("assistant", "b")),
    "a system turn in the middle": said(
        ("user", "a"), ("system", "s"), ("user", "a"), ("assistant", "b")
    ),
    "more than were asked for": json.dumps(
        3 * json.loads(said(("user", "a"), ("assistant", "b")))
    ).encode(),
    "deep nesting": b"[" * 10**5,
}


@pytest.mark.parametrize("content", FORGED_DIALOGUES.values(), ids=FORGED_DIALOGUES)
def test_forged_reply_dialogues_are_chosen_again_with_a_warning(tiny_config, tmp_path, content):
    events = []
    config = tiny_config(evaluation={"reply_dialogues": 2})
    inputs = Inputs(
        config, read_data_files(config.data), Cache(tmp_path / "runs", events.append), events.append
    )
    before = find_reply_dialogues(inputs, "validation")
    assert len(before) == 2
    (folder,) = (tmp_path / "runs" / NAME).glob("replies-*[0-9a-f]")
    (folder / "dialogues.json").write_bytes(content)
    seal_again(folder)
    assert find_reply_dialogues(inputs, "validation") == before
    (warning,) = [
        event.message for event in events if isinstance(event, Notice) and event.is_warning
    ]
    assert warning.endswith("preparing the data again")


@given(
    turns=st.lists(
        st.tuples(
            st.sampled_from(["system", "user", "assistant"]), st.text(max_size=3), st.booleans()
        ),
        max_size=4,
    ),
    line=st.integers(-(2**63), 2**63 - 1),
)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=num_examples(60),
    deadline=None,
)
def test_reply_dialogues_that_are_accepted_can_be_answered(
    turns, line, tiny_config, tmp_path, make_encoder
):
    shutil.rmtree(tmp_path / "runs", ignore_errors=True)
    config = tiny_config(evaluation={"reply_dialogues": 2})
    inputs = Inputs(
        config, read_data_files(config.data), Cache(tmp_path / "runs", ignored), ignored
    )
    before = find_reply_dialogues(inputs, "validation")
    (folder,) = (tmp_path / "runs" / NAME).glob("replies-*[0-9a-f]")
    forged = [
        {"role": role, "text": text, "is_trained": is_trained} for role, text, is_trained in turns
    ]
    (folder / "dialogues.json").write_text(json.dumps([{"turns": forged, "line": line}]))
    seal_again(folder)
    found = find_reply_dialogues(inputs, "validation")
    if found != before:
        (dialogue,) = found
        index = reference_index(dialogue.turns)
        assert index is not None
        assert make_encoder().prompt(dialogue.turns[:index], max_new_tokens=8).ids


def ignored(event):
    pass
