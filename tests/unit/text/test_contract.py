"""The contract of a folder: it reloads as the same encoder, and names every field that differs."""

from __future__ import annotations

import json

import pytest

from convo_cli.data.dialogue import Dialogue, Turn
from convo_cli.errors import ChangedError, CheckpointError, ModelError
from convo_cli.text.contract import (
    DialogueContract,
    contract_of,
    load_encoder,
    require_same,
    save_encoder,
)
from convo_cli.text.spiece.piece_model import SpieceFile, read_spiece

TURNS = (Turn("user", "Hello there"), Turn("assistant", "Hi! 안녕 🙂"))


@pytest.fixture
def folder(make_encoder, tmp_path, spiece):
    model = SpieceFile("spiece.model", spiece)
    save_encoder(make_encoder(max_length=64), tmp_path, spiece=model)
    return tmp_path


def rewrite(folder, **changes):
    path = folder / "dialogue.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_saved_encoder_is_read_back_as_it_was(make_encoder, folder, spiece):
    encoder, read = make_encoder(max_length=64), load_encoder(folder)
    assert contract_of(read) == contract_of(encoder)
    assert (contract_of(read).pad_id, contract_of(read).stop_ids) == (
        encoder.pad_id,
        encoder.stop_ids,
    )
    assert (read.max_length, read.stop_ids, read.pad_id) == (64, encoder.stop_ids, encoder.pad_id)
    assert read.prompt(TURNS, max_new_tokens=8) == encoder.prompt(TURNS, max_new_tokens=8)
    (ours,), (theirs,) = (one.encode([Dialogue(TURNS)])[0] for one in (encoder, read))
    assert ours.input_ids.tolist() == theirs.input_ids.tolist()
    assert ours.targets.tolist() == theirs.targets.tolist()
    assert read_spiece(folder, "model") == SpieceFile("spiece.model", spiece)


def test_saving_what_was_read_writes_the_same_contract(folder, tmp_path_factory):
    again = tmp_path_factory.mktemp("again")
    save_encoder(load_encoder(folder), again, spiece=None)
    assert (again / "dialogue.json").read_bytes() == (folder / "dialogue.json").read_bytes()
    assert read_spiece(again, "model") is None


def test_the_folder_holds_the_chat_template_for_plain_transformers(folder):
    contract = json.loads((folder / "dialogue.json").read_text())
    assert (folder / "chat_template.jinja").read_text() == contract["chat_template"]
    assert contract["stop_tokens"] == ["<|end|>"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("chat_template", "{{ messages }}"), ("special_tokens", ["<|end|>"]),
        ("stop_tokens", ["<|user|>"]),
        ("stop_ids", [3]), ("pad_id", 5), ("window_rule", "none/0"), ("tokenizer_sha256", "0" * 64),
    ],
)  # fmt: skip
def test_each_field_that_differs_is_named_with_both_values(folder, field, value):
    before = json.loads((folder / "dialogue.json").read_text())[field]
    rewrite(folder, **{field: value})
    with pytest.raises(ChangedError) as caught:
        load_encoder(folder)
    message = caught.value.message
    shown = json.dumps(before, ensure_ascii=False)[:100]
    assert f" {field} is {json.dumps(value)} in dialogue.json, but {shown}" in message
    assert sum(f" {name} is " in message for name in DialogueContract.model_fields) == 1
    assert caught.value.exit_code == 6


def test_a_long_value_that_differs_is_shown_in_part(folder):
    rewrite(folder, chat_template="{{ messages }}" + "x" * 100_000)
    with pytest.raises(
        ChangedError, match=r"chat_template is .{150,250} in dialogue\.json"
    ) as caught:
        load_encoder(folder)
    assert len(caught.value.message) < 1000


def test_several_differences_are_all_named(make_encoder):
    one, other = contract_of(make_encoder("turns", 64)), contract_of(make_encoder("chatml", 32))
    with pytest.raises(ChangedError) as caught:
        require_same(one, other, "here")
    for field in (
        "template",
        "chat_template",
        "special_tokens",
        "stop_tokens",
        "max_length",
        "tokenizer_sha256",
    ):
        assert f" {field} is " in caught.value.message
    require_same(one, one, "here")


def test_one_changed_token_is_another_tokenizer(folder):
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    pieces = tokenizer["model"]["vocab"]
    pieces[-1], pieces[-2] = pieces[-2], pieces[-1]
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(ChangedError, match="tokenizer_sha256"):
        load_encoder(folder)


def test_an_edited_chat_template_does_not_change_what_convo_renders(folder, make_encoder):
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert load_encoder(folder).template.chat_template == make_encoder().template.chat_template


def test_a_folder_without_a_contract_is_refused(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"dialogue\.json: not found, so convo has not trained"
    ):
        load_encoder(tmp_path)


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"format": 2}', '{"template": "turns"}', '{"format": 1, "pickle": "x"}', "\xff"],
)
def test_an_unreadable_contract_is_named(folder, content):
    (folder / "dialogue.json").write_text(content, encoding="latin-1")
    with pytest.raises(CheckpointError, match=r"dialogue\.json: cannot be read") as caught:
        load_encoder(folder)
    assert "\n" not in caught.value.message


def test_a_missing_tokenizer_is_named(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"no readable tokenizer|vocabulary was not found"):
        load_encoder(folder)
