"""What a receipt allows: texts that a format's reason explains, ties, and more ends of replies."""

from __future__ import annotations

import pytest

from convo_cli.data.dialogue import Turn
from convo_cli.export.format import TIE, OtherReading
from convo_cli.export.formats import FORMATS
from convo_cli.export.llama_cpp.gguf_text_rules import explains
from convo_cli.export.proof.answer_comparison import (
    DifferenceError,
    Rules,
    compare_prompts,
    compare_replies,
    compare_texts,
    require_stop_ids,
)
from convo_cli.export.proof.checkpoint_answers import Prompt, Texts

EXACT = Rules("a program", None, has_exact_weights=True)
UNIGRAM = {
    "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    "model": {
        "type": "Unigram", "byte_fallback": True,
        "vocab": [["a", -1.0], ["aa", -2.0], ["b", -1.0], ["bb", -3.0], ["ab", -2.0]],
    },
}  # fmt: skip
NFC = {"normalizer": {"type": "NFC"}, "model": {"type": "BPE"}}
FIRST = {
    "pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "first"},
    "model": {"type": "BPE"},
}


def prompt(ids, reply=(), ties=()):
    return Prompt("dialogue 1", (Turn("user", "a"),), True, ids, reply, frozenset(ties))


@pytest.mark.parametrize(
    ("spec", "text", "ids", "wanted", "is_explained"),
    [
        (UNIGRAM, "aaa", [0, 1], [1, 0], True),
        (UNIGRAM, "aab", [0, 4], [1, 2], True),
        (UNIGRAM, "bb", [2, 2], [3], False),
        (UNIGRAM, "a", [2], [0], False),
        (UNIGRAM, "a", [9], [0], False),
        (UNIGRAM, "a▁", [2], [0], True),
        (UNIGRAM, "\ufeffa", [2], [0], True),
        (NFC, "é", [2], [0], False),
        (NFC, "e\u0301", [2], [0], True),
        (FIRST, "a", [2], [0], True),
    ],
)
def test_only_the_texts_that_a_reason_names_may_differ(spec, text, ids, wanted, is_explained):
    assert explains(spec, OtherReading([text], False, ids, wanted)) is is_explained


def test_a_prompt_has_its_first_space():
    assert not explains(FIRST, OtherReading(["a"], True, [2], [0]))


def test_an_unexplained_text_or_prompt_is_an_error():
    rules = Rules("a program", "a reason", has_exact_weights=False, explains=lambda one: False)
    texts = Texts(["text 1"], ["a"], [[1]], 0)
    with pytest.raises(DifferenceError, match=r"text 1.* differs at token 1: id 2 instead of id 1"):
        compare_texts("a text", texts, [[2]], rules, is_own=False)
    with pytest.raises(DifferenceError, match=r"the prompt of dialogue 1 .* differs at token 1"):
        compare_prompts([prompt([1])], [[2]], rules, 0)


def test_a_reply_may_differ_first_at_a_tie_alone():
    assert compare_replies([prompt([1], [5, 6, 7], {1})], [[5, 9, 9]], EXACT).num_ties == 1
    with pytest.raises(DifferenceError, match="differs at token 3: id 9 instead of id 7"):
        compare_replies([prompt([1], [5, 6, 7], {1})], [[5, 6, 9]], EXACT)


def test_a_reply_may_end_with_more_tokens_but_not_with_those_of_texts():
    texts = Texts(["text 1"], ["a"], [[1, 4]], 0)
    require_stop_ids([2, 3], [2], texts, EXACT)
    require_stop_ids([1, 2], [1, 2], texts, EXACT)
    with pytest.raises(DifferenceError, match="also ends with id 4, which is a piece of text"):
        require_stop_ids([2, 4], [2], texts, EXACT)
    with pytest.raises(DifferenceError, match=r"but not with .2."):
        require_stop_ids([3], [2], texts, EXACT)


@pytest.mark.parametrize("kind", ["gpt2", "gemma", "gemma2", "phi", "starcoder2"])
def test_ties_are_wider_where_llama_cpp_rounds_gelu(kind):
    assert FORMATS["gguf"].about().tie({"model_type": kind}) > 3e-3
    assert FORMATS["gguf"].about().tie({"model_type": "llama"}) == TIE
    assert FORMATS["onnx"].about().tie({"model_type": kind}) == TIE
