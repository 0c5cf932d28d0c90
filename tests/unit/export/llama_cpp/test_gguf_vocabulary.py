"""The vocabulary in a GGUF file, and what llama.cpp cannot hold."""

from __future__ import annotations

import copy
import json

import pytest

from convo_cli.errors import ModelError
from convo_cli.export.llama_cpp.gguf_text_rules import inexact, tokenizer_objection
from convo_cli.export.llama_cpp.gguf_vocabulary import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    vocabulary_of,
)
from tests.gguf_models import WORD_RULES, byte_level_tokenizer

KINDS = ("byte-level bpe", "sentencepiece bpe", "unigram")


@pytest.fixture(scope="module")
def specs(encoders):
    return {
        kind: json.loads(encoder.tokenizer.backend_tokenizer.to_str())
        for kind, encoder in encoders.items()
    }


@pytest.fixture
def spec(specs, request):
    return copy.deepcopy(specs[getattr(request, "param", "sentencepiece bpe")])


def added(index, content, *, special=True):
    return {
        "id": index, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
        "normalized": False, "special": special,
    }  # fmt: skip


def num_tokens(spec):
    return 1 + max(token["id"] for token in spec["added_tokens"])


@pytest.mark.parametrize("kind", KINDS)
def test_each_token_has_its_text_and_type(encoders, specs, kind):
    encoder, num = encoders[kind], num_tokens(specs[kind])
    found = vocabulary_of(specs[kind], encoder.template.written_tokens, num)
    assert len(found.texts) == len(found.types) == num
    texts = encoder.tokenizer.convert_ids_to_tokens(range(num))
    if kind == "unigram":
        texts = [text.replace("▁", " ") for text in texts]
    assert found.texts == texts
    kinds = dict(zip(found.texts, found.types, strict=True))
    assert {kinds[text] for text in encoder.template.written_tokens} == {CONTROL}
    if kind != "byte-level bpe":
        assert kinds["<unk>"] == UNKNOWN
        assert [text for text, type_ in kinds.items() if type_ == BYTE] == [
            f"<0x{byte:02X}>" for byte in range(256)
        ]
    assert kinds["a"] == NORMAL


@pytest.mark.parametrize("spec", KINDS, indirect=True)
def test_rows_without_a_token_are_unused(spec):
    num = num_tokens(spec)
    found = vocabulary_of(spec, (), num + 2)
    assert found.texts[num:] == [f"[PAD{num}]", f"[PAD{num + 1}]"]
    assert found.types[num:] == [UNUSED, UNUSED]
    assert found.scores is None or len(found.scores) == num + 2


def test_more_tokens_than_rows_are_refused(spec):
    with pytest.raises(ModelError, match=r"but the model has 3 rows"):
        vocabulary_of(spec, (), 3)


def test_added_tokens_are_of_the_user_unless_special_or_of_the_template(spec):
    num = num_tokens(spec)
    spec["added_tokens"] += [
        added(num, "<one>", special=False),
        added(num + 1, "<two>", special=False),
        added(num + 2, "<three>"),
    ]
    found = vocabulary_of(spec, ["<two>"], num + 3)
    assert found.types[num:] == [USER_DEFINED, CONTROL, CONTROL]


def test_scores_follow_the_merges(spec):
    found = vocabulary_of(spec, (), num_tokens(spec))
    assert found.scores is not None
    scores = dict(zip(found.texts, found.scores, strict=True))
    order = [scores["".join(pair)] for pair in spec["model"]["merges"]]
    assert order == sorted(order, reverse=True)
    assert len(set(order)) > 50


def test_merges_in_another_order_than_pieces_are_refused(spec):
    merges = spec["model"]["merges"]
    merges.append(merges.pop(0))
    merges.insert(0, merges[3])
    with pytest.raises(ModelError, match="are not those of a SentencePiece model"):
        vocabulary_of(spec, (), num_tokens(spec))


def test_a_missing_merge_is_refused(spec):
    pair = spec["model"]["merges"].pop(7)
    with pytest.raises(ModelError, match=f'none yields "{"".join(pair)}" from'):
        vocabulary_of(spec, (), num_tokens(spec))


@pytest.mark.parametrize("spec", ["unigram"], indirect=True)
def test_an_unknown_character_costs_ten_more_than_the_worst_piece(spec):
    found = vocabulary_of(spec, (), num_tokens(spec))
    assert found.scores is not None
    pieces = [
        (piece, score)
        for (_, piece), score, kind in zip(
            spec["model"]["vocab"], found.scores, found.types, strict=False
        )
        if kind == NORMAL
    ]
    worst = min(piece for piece, _ in pieces)
    for piece, score in pieces:
        assert score / 1_000 == pytest.approx(piece / (10 - worst))
    assert {score for score, kind in zip(found.scores, found.types, strict=True) if kind != NORMAL}


@pytest.mark.parametrize("spec", KINDS, indirect=True)
@pytest.mark.parametrize(
    "text", ["a\0b", "x" * 4_097, "\ud800"], ids=["a NUL", "a long token", "half a pair"]
)
def test_texts_that_c_programs_read_differently_are_refused(spec, text):
    num = num_tokens(spec)
    spec["added_tokens"].append(added(num, text))
    with pytest.raises(ModelError, match="token"):
        vocabulary_of(spec, (), num + 1)


def test_two_tokens_of_one_text_are_refused(spec):
    num = num_tokens(spec)
    spec["added_tokens"].append(added(num + 1, f"[PAD{num}]"))
    with pytest.raises(ModelError, match=rf"two tokens .*PAD{num}"):
        vocabulary_of(spec, (), num + 2)


def test_the_number_of_added_tokens_is_bounded(spec):
    num = num_tokens(spec)
    spec["added_tokens"] = [added(num + index, f"<{index}>") for index in range(2**16 + 1)]
    with pytest.raises(ModelError, match="has 65,537 added tokens"):
        vocabulary_of(spec, (), num + 2**16 + 1)


@pytest.mark.parametrize("flag", ["lstrip", "rstrip", "single_word"])
@pytest.mark.parametrize(("special", "written"), [(True, ["<x>"]), (False, []), (False, ["<x>"])])
def test_tokens_that_take_spaces_are_refused(spec, flag, special, written):
    num = num_tokens(spec)
    spec["added_tokens"].append(added(num, "<x>", special=special) | {flag: True})
    with pytest.raises(ModelError, match=f"does not apply {flag} of its token"):
        vocabulary_of(spec, written, num + 1)


def test_a_special_token_that_no_dialogue_has_may_take_spaces(spec):
    num = num_tokens(spec)
    spec["added_tokens"].append(added(num, "<mask>") | {"lstrip": True})
    assert vocabulary_of(spec, (), num + 1).types[num] == CONTROL


def test_a_token_that_stands_for_spaces_is_refused(spec):
    num = num_tokens(spec)
    spec["added_tokens"].append(added(num, "▁▁▁▁▁▁", special=False) | {"normalized": True})
    with pytest.raises(ModelError, match="where a text has a space"):
        vocabulary_of(spec, (), num + 1)


@pytest.mark.parametrize("rules", WORD_RULES)
def test_rules_that_cut_words_are_recognised(texts, rules):
    tokenizer = byte_level_tokenizer(rules, texts[:50], 300)
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    assert vocabulary_of(spec, (), 300).pre == rules


FAULTS = {
    "dropout": ("byte-level bpe", lambda spec: spec["model"].update(dropout=0.1)),
    "other rules": (
        "byte-level bpe",
        lambda spec: spec["pre_tokenizer"].update(add_prefix_space=True),
    ),
    "no rules": (
        "byte-level bpe",
        lambda spec: spec.update(pre_tokenizer={"type": "Whitespace"}),
    ),
    "other words": (
        "byte-level bpe",
        lambda spec: spec["model"].update(ignore_merges=True),
    ),
    "a prefix": (
        "byte-level bpe",
        lambda spec: spec["model"].update(continuing_subword_prefix="##"),
    ),
    "the end of words": (
        "byte-level bpe",
        lambda spec: spec["model"].update(end_of_word_suffix="</w>"),
    ),
    "lower case": (
        "sentencepiece bpe",
        lambda spec: spec.update(normalizer={"type": "Lowercase"}),
    ),
    "lower case of words": (
        "byte-level bpe",
        lambda spec: spec.update(normalizer={"type": "Lowercase"}),
    ),
    "words without merges": (
        "sentencepiece bpe",
        lambda spec: spec["model"].update(ignore_merges=True),
    ),
    "a space before each text": (
        "sentencepiece bpe",
        lambda spec: spec["pre_tokenizer"].update(prepend_scheme="always"),
    ),
    "no bytes": ("unigram", lambda spec: spec["model"].update(byte_fallback=False)),
    "a space before unigrams": (
        "unigram",
        lambda spec: spec.update(normalizer={"type": "Prepend", "prepend": "▁"}),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_tokenizer_that_llama_cpp_reads_differently_is_refused(specs, fault):
    kind, change = FAULTS[fault]
    spec = copy.deepcopy(specs[kind])
    assert tokenizer_objection(spec) is None
    change(spec)
    assert tokenizer_objection(spec) is not None
    with pytest.raises(ModelError):
        vocabulary_of(spec, (), num_tokens(spec))


@pytest.mark.parametrize("kind", KINDS)
def test_the_form_of_characters_is_stated_as_inexact_and_not_refused(specs, kind):
    spec = specs[kind] | {"normalizer": {"type": "NFC"}}
    if kind == "byte-level bpe":
        assert tokenizer_objection(spec) is None
        assert inexact(spec) == "texts that are not in the normal form NFC"
        assert inexact(specs[kind]) is None
    else:
        assert tokenizer_objection(spec) is not None
    assert inexact(specs["unigram"]) is not None
    first = {"pre_tokenizer": {**specs["sentencepiece bpe"]["pre_tokenizer"]}}
    first["pre_tokenizer"]["prepend_scheme"] = "first"
    assert "no space" in str(inexact(specs["sentencepiece bpe"] | first))
    assert inexact(specs["sentencepiece bpe"]) is None


def test_the_space_before_a_text_is_stated(spec):
    spec["normalizer"] = {
        "type": "Sequence",
        "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ],
    }
    spec["pre_tokenizer"] = None
    assert vocabulary_of(spec, (), num_tokens(spec)).adds_space


@pytest.mark.parametrize("score", [10.0, 20.0, float("inf"), float("-inf"), float("nan")])
def test_scores_that_are_no_logarithms_are_refused(score):
    pieces = [["<unk>", score], *([f"<0x{one:02X}>", 0.0] for one in range(256)), ["a", score]]
    spec = {
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "model": {"type": "Unigram", "byte_fallback": True, "unk_id": 0, "vocab": pieces},
    }
    with pytest.raises(ModelError, match="no logarithms of probabilities"):
        vocabulary_of(spec, (), 300)
