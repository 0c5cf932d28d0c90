"""A saved tokenizer reloads unchanged, with or without its class, or it is refused."""

from __future__ import annotations

import json

import pytest
from tokenizers import normalizers

from convo_cli.data.dialogue import Dialogue, Turn
from convo_cli.errors import CheckpointError, ModelError
from convo_cli.text import readback
from convo_cli.text.contract import load_encoder, save_encoder
from convo_cli.text.readback import reloadable, require_equal
from convo_cli.text.templates.template import TEMPLATES
from convo_cli.text.tokenizers.pretrained import load_pretrained_tokenizer
from convo_cli.text.tokenizers.probes import PROBES
from tests.foreign import byte_pairs, fast, llama_legacy, sentence_pieces


def test_there_are_two_hundred_different_probes_of_many_scripts():
    assert len(set(PROBES)) == 200
    assert len({character for text in PROBES for character in text}) > 250
    assert any(text != text.strip() for text in PROBES)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_folder_gives_back_the_encoder_that_was_saved(make_encoder, tmp_path, name):
    encoder = make_encoder(name)
    save_encoder(encoder, tmp_path, spiece=None)
    require_equal(encoder, tmp_path, ["more"], [Dialogue((Turn("system", "a"), Turn("user", "b")))])


def _lower(folder):
    path = folder / "tokenizer.json"
    spec = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**spec, "normalizer": {"type": "Lowercase"}}), encoding="utf-8")


def _other_role(folder):
    path = folder / "tokenizer_config.json"
    path.write_text(path.read_text().replace('"eos_token": "<|end|>"', '"eos_token": "<|user|>"'))


def _special_as_text(folder):
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "split_special_tokens": True}))


@pytest.mark.parametrize("change", [_lower, _other_role, _special_as_text])
def test_any_difference_is_a_refusal_that_names_it(make_encoder, tmp_path, change):
    encoder = make_encoder()
    save_encoder(encoder, tmp_path, spiece=None)
    change(tmp_path)
    with pytest.raises(ModelError, match="changes when it is saved and loaded: "):
        require_equal(encoder, tmp_path)


def test_a_difference_that_the_hash_does_not_show_is_found_by_the_probes(
    make_encoder, tmp_path, monkeypatch
):
    encoder = make_encoder()
    save_encoder(encoder, tmp_path, spiece=None)
    read = load_encoder(tmp_path)
    monkeypatch.setattr(readback, "load_encoder", lambda folder: read)
    read._backend.normalizer = normalizers.Lowercase()
    with pytest.raises(ModelError, match='"Hello, world!" in a turn has the ids'):
        require_equal(encoder, tmp_path)


def test_a_folder_without_a_saved_encoder_is_refused(make_encoder, tmp_path):
    with pytest.raises(CheckpointError):
        require_equal(make_encoder(), tmp_path)


# The form that is saved


def test_a_tokenizer_that_survives_keeps_its_class(tmp_path):
    tokenizer = fast(byte_pairs(), eos_token="<|endoftext|>")
    notices = []
    assert reloadable(tokenizer, tmp_path, notices.append) is tokenizer
    assert notices == []


def test_a_tokenizer_that_does_not_survive_its_class_is_saved_without_it(tmp_path):
    folder = llama_legacy(tmp_path / "llama")
    tokenizer = load_pretrained_tokenizer(str(folder))
    tokenizer.pad_token = "</s>"
    tokenizer.padding_side = "right"
    tokenizer.chat_template = "{{ messages }}"
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|user|>"]})
    notices = []
    plain = reloadable(tokenizer, folder, notices.append)
    assert [
        "saved as PreTrainedTokenizerFast, because LlamaTokenizer" in notice.message
        for notice in notices
    ] == [True]
    plain.save_pretrained(folder)
    read = load_pretrained_tokenizer(str(folder))
    for name in (
        "special_tokens_map",
        "chat_template",
        "padding_side",
        "model_max_length",
        "all_special_ids",
    ):
        assert getattr(read, name) == getattr(plain, name) == getattr(tokenizer, name), name
    for text in PROBES:
        assert read(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert reloadable(read, folder, notices.append) is read, (
        "a resumed run saves it in the same form"
    )
    assert len(notices) == 1


def test_a_tokenizer_that_no_form_preserves_is_refused(tmp_path):
    """transformers always builds Qwen2's tokenizer from the vocabulary, for any named class."""
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    tokenizer = fast(sentence_pieces(), unk_token="<unk>")
    with pytest.raises(ModelError, match="changes when it is saved and loaded") as caught:
        reloadable(tokenizer, tmp_path, lambda event: None)
    assert "PreTrainedTokenizerFast" in str(caught.value.hint)
