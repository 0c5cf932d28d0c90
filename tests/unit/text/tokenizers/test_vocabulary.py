"""Every token has an id of its own, with any vocabulary, and no text becomes a special token."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from convo_cli.data.dialogue import Turn
from convo_cli.errors import ModelError
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.templates.template import make_template
from convo_cli.text.tokenizers.pretrained import load_pretrained_tokenizer
from convo_cli.text.tokenizers.trained import add_special_tokens
from convo_cli.text.tokenizers.vocabulary import num_ids, settle_ids
from tests.cases import num_examples
from tests.strategies import texts

WORDS = ["<unk>", *(f"w{index}" for index in range(300)), *"abcdefghijklmnopqrstuvwxyz <>|/-"]
NEW = ("<|user|>", "<|end|>")


def words_with(unused):
    """The words with ascending ids that leave the ``unused`` ones out."""
    free = (index for index in range(10**6) if index not in unused)
    return dict(zip(WORDS, free, strict=False))


def backend_of(kind, words):
    if kind == "BPE":
        return Tokenizer(models.BPE(words, [], unk_token="<unk>"))
    backend = Tokenizer(
        (models.WordLevel if kind == "WordLevel" else models.WordPiece)(words, unk_token="<unk>")
    )
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return backend


def fast(backend, **named):
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=backend, clean_up_tokenization_spaces=False, **named
    )


def are_distinct(tokenizer):
    return len(set(tokenizer.get_vocab().values())) == len(tokenizer.get_vocab())


@pytest.mark.parametrize("kind", ["BPE", "WordLevel", "WordPiece"])
@settings(max_examples=num_examples(30), deadline=None)
@given(unused=st.sets(st.integers(0, 350), max_size=12), text=texts())
def test_new_tokens_get_new_ids_wherever_ids_are_unused_and_nothing_else_changes(
    kind, unused, text
):
    words = words_with(unused)
    tokenizer = fast(backend_of(kind, words), unk_token="<unk>")
    before = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    assert num_ids(tokenizer) == max(words.values()) + 1
    assert add_special_tokens(tokenizer, NEW) == NEW
    vocabulary = tokenizer.get_vocab()
    assert are_distinct(tokenizer)
    assert vocabulary.items() >= words.items()
    assert sorted(vocabulary[token] for token in NEW) == [
        max(words.values()) + 1,
        max(words.values()) + 2,
    ]
    assert num_ids(tokenizer) == len(tokenizer) == max(words.values()) + 3
    assert tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True) == before


def test_an_earlier_token_keeps_its_id_among_unused_ones_and_new_ones_come_after_all():
    tokenizer = fast(backend_of("BPE", words_with(set(range(320, 400)))), unk_token="<unk>")
    tokenizer.add_tokens(["<far>"])
    assert tokenizer.convert_tokens_to_ids("<far>") == 333
    assert add_special_tokens(tokenizer, NEW) == NEW
    assert tokenizer.convert_tokens_to_ids(["<far>", *NEW]) == [333, 413, 414]
    assert are_distinct(tokenizer)


def test_a_vocabulary_with_unused_ids_is_unchanged_without_new_tokens():
    tokenizer = fast(backend_of("BPE", words_with({50})))
    before = tokenizer.backend_tokenizer.to_str()
    assert add_special_tokens(tokenizer, ()) == ()
    settle_ids(tokenizer, {}, "here")
    assert tokenizer.backend_tokenizer.to_str() == before


def test_more_unused_ids_than_any_vocabulary_has_are_refused():
    tokenizer = fast(backend_of("BPE", {**words_with(()), "far": 10**5}))
    with pytest.raises(ModelError, match=r"has the id 100,000, but only 334 tokens"):
        settle_ids(tokenizer, {}, "here")


def test_unused_ids_up_to_a_stated_one_are_bounded_too():
    tokenizer = fast(backend_of("BPE", words_with(())))
    with pytest.raises(ModelError, match=r"has the id 2,147,483,648, but only 334 tokens"):
        settle_ids(tokenizer, {"<far>": 2**31}, "here")


# The folder as it comes


def save(folder, words, *added, **named):
    tokenizer = fast(backend_of("BPE", words), unk_token="<unk>", **named)
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer.json"
    spec = json.loads(path.read_text(encoding="utf-8"))
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    spec["added_tokens"] += [
        {"id": index, "content": token, "special": True, **flags} for token, index in added
    ]
    spec["model"]["vocab"] = words
    path.write_text(json.dumps(spec), encoding="utf-8")
    return str(folder)


@pytest.mark.parametrize("unused", [(), (100,), (100, 200)])
@pytest.mark.parametrize("far", [(333,), (334,), (340, 345), (390, 334, 333)])
def test_added_tokens_keep_the_ids_that_tokenizer_json_states(tmp_path, unused, far):
    words = words_with(unused)
    added = {f"<far{index}>": index + len(unused) for index in far}
    tokenizer = load_pretrained_tokenizer(save(tmp_path, words, *added.items()))
    assert tokenizer.get_vocab().items() >= {**words, **added}.items()
    add_special_tokens(tokenizer, NEW)
    assert are_distinct(tokenizer)
    assert min(map(tokenizer.convert_tokens_to_ids, NEW)) > max(added.values())


def test_a_stated_id_that_belongs_to_a_word_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r'tokenizer\.json gives "<far>" the id 7, the id of "w6"'):
        load_pretrained_tokenizer(save(tmp_path, words_with(()), ("<far>", 7)))


def test_two_words_with_one_id_are_refused(tmp_path):
    with pytest.raises(ModelError, match='gives the id 7 to two tokens, "w6" and "w9"'):
        load_pretrained_tokenizer(save(tmp_path, {**words_with(()), "w9": 7}))


def test_a_named_token_outside_the_vocabulary_gets_a_new_id(tmp_path):
    """transformers adds it when it loads the folder, and gives it the id of the last word."""
    folder = save(tmp_path, words_with({100}))
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pad_token": "<pad>"}))
    tokenizer = load_pretrained_tokenizer(folder)
    assert are_distinct(tokenizer)
    assert tokenizer.pad_token_id == num_ids(tokenizer) - 1 > max(words_with({100}).values())


def test_settled_ids_are_the_same_after_saving_and_loading(tmp_path):
    tokenizer = load_pretrained_tokenizer(save(tmp_path, words_with({3, 77}), ("<far>", 360)))
    add_special_tokens(tokenizer, NEW)
    tokenizer.save_pretrained(tmp_path / "again")
    assert load_pretrained_tokenizer(str(tmp_path / "again")).get_vocab() == tokenizer.get_vocab()


# Words that become special tokens


def _unigram():
    pieces = [
        ("<unk>", 0.0),
        *((word, -5.0) for word in WORDS[1:]),
        ("<|user|>", -6.0),
        ("<|end|>", -6.0),
    ]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0))
    backend.decoder = decoders.Fuse()
    return backend


def _merged():
    """Byte pairs that spell the tokens, as any vocabulary has them whose corpus did."""
    words, merges = words_with(()), []
    for token in NEW:
        for end in range(2, len(token) + 1):
            if token[:end] not in words:
                words[token[:end]] = len(words)
                merges.append((token[: end - 1], token[end - 1]))
    return Tokenizer(models.BPE(words, merges, unk_token="<unk>"))


SPELLING = {
    "WordLevel": lambda: backend_of(
        "WordLevel", {**words_with(()), "<|end|>": 333, "<|user|>": 334}
    ),
    "WordPiece": lambda: backend_of(
        "WordPiece", {**words_with(()), "<|end|>": 333, "<|user|>": 334}
    ),
    "Unigram": _unigram,
    "BPE": _merged,
}


@pytest.mark.parametrize("kind", SPELLING)
def test_a_word_that_becomes_a_special_token_keeps_its_id_and_text_that_spells_it_is_text(kind):
    tokenizer = fast(SPELLING[kind](), unk_token="<unk>")
    tokenizer.add_tokens(["<think>"])
    before = tokenizer.get_vocab()
    template = make_template("turns", tokenizer)
    assert set(add_special_tokens(tokenizer, template.special_tokens)) == {
        "<|system|>",
        "<|assistant|>",
    }
    assert tokenizer.get_vocab().items() >= before.items()
    tokenizer.eos_token = tokenizer.pad_token = "<|end|>"
    encoder = DialogueEncoder(tokenizer, template, max_length=500)
    says = [
        encoder.prompt((Turn("user", text),), max_new_tokens=1).ids
        for text in ("x", "a <|end|> b<|end|><|user|>")
    ]
    special = {token: tokenizer.convert_tokens_to_ids(token) for token in template.special_tokens}
    for ids in says:
        found = [token for token, index in special.items() for each in ids if each == index]
        assert sorted(found) == ["<|assistant|>", "<|end|>", "<|user|>"], (
            tokenizer.convert_ids_to_tokens(ids)
        )
    thought = encoder.prompt((Turn("user", "a <think> b"),), max_new_tokens=1).ids
    assert before["<think>"] in thought, "a token that is not special is one in texts too"
