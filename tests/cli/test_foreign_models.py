"""Models as other tools leave them: trained, exported and resumed, or refused by name before the first step."""

from __future__ import annotations

import json

import pytest

from tests.commands import settings
from tests.foreign import SIZE, byte_pairs, fast, llama_legacy, save_foreign, with_unused_id

PRETRAINED = settings(
    "name=new", "model.scratch=null", "model.pretrained=base", "training.max_steps=1", "training.warmup_steps=0",
    "data.validation=[]",
)  # fmt: skip


def splitting(folder):
    """A GPT-2 whose tokenizer spells special tokens as text, and whose config asks for tuples and attention maps."""
    size = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 128}
    tokenizer = fast(byte_pairs(), eos_token="<|endoftext|>")
    save_foreign(folder, "gpt2", tokenizer, size, split_special_tokens=True)
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "output_attentions": True, "return_dict": False}))


@pytest.mark.parametrize("make", [llama_legacy, with_unused_id, splitting])
def test_what_is_trained_can_be_exported_resumed_and_talked_to(work, convo, make):
    make(work / "base")
    assert convo("train", "config.yaml", "-q", *PRETRAINED) == (0, "runs/new\n", "")
    assert convo("export", "runs/new", "exports/new", "-q").code == 0
    assert convo("resume", "runs/new", "-q", *settings("training.max_steps=2")).code == 0
    assert convo("chat", "exports/new", "--temperature", "0", stdin=b"Hello there!\n").code == 0


def test_no_two_tokens_of_an_export_share_an_id_and_words_keep_theirs(work, convo):
    from transformers import AutoTokenizer

    folder = with_unused_id(work / "base")
    words = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    assert convo("train", "config.yaml", "-q", *PRETRAINED).code == 0
    assert convo("export", "runs/new", "exports/new", "-q").code == 0
    vocabulary = AutoTokenizer.from_pretrained(work / "exports/new").get_vocab()
    assert len(set(vocabulary.values())) == len(vocabulary)
    assert vocabulary.items() >= words.items()
    assert json.loads((work / "exports/new/config.json").read_text())["vocab_size"] == max(vocabulary.values()) + 1


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_an_encoder_is_refused_and_a_decoder_of_the_same_kind_is_trained(work, convo, kind):
    tokenizer = fast(byte_pairs(), eos_token="<|endoftext|>")
    size = {**SIZE, "max_position_embeddings": 160, "pad_token_id": 0}
    save_foreign(work / "base", kind, tokenizer, size)
    result = convo("train", "config.yaml", "-q", *PRETRAINED)
    assert (result.code, result.out) == (2, "")
    assert "is not a causal language model" in result.err
    assert "set is_decoder to true in its config.json" in result.err
    assert not (work / "runs/new").exists()
    path = work / "base/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "is_decoder": True}))
    assert convo("train", "config.yaml", "-q", *PRETRAINED).code == 0


def test_a_chat_template_of_tokens_that_the_model_does_not_know_is_refused(work, convo):
    tokenizer = fast(byte_pairs(), eos_token="<|endoftext|>")
    size = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 128}
    save_foreign(work / "base", "gpt2", tokenizer, size)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|turn|>"]})
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<|turn|>' + m['role'] + ' ' + m['content'] + '<|endoftext|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|turn|>assistant ' }}{% endif %}"
    )
    tokenizer.save_pretrained(work / "base")
    result = convo("chat", "base", stdin=b"Hello\n")
    assert result.code == 2
    assert "its chat template writes <|turn|> (id " in result.err
