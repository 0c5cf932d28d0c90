"""No tokenizer expands a text beyond the bound from its JSON; known tokenizers are below it."""

from __future__ import annotations

import json

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from convo_cli.text.tokenizers.expansion import MAX_WRITTEN, _written, excess
from convo_cli.text.tokenizers.vocabulary import TokenFinder
from tests.cases import num_examples

TEXTS = st.text(st.sampled_from("aéi ﷺΐ字한\u0301\n🙂"), max_size=30)
PARTS = st.text(st.sampled_from("ab éﷺ"), max_size=4)
PATTERNS = st.sampled_from(["", "a*", "a|", " {2,}"])
NORMALIZERS = "NFC NFD NFKC NFKD Lowercase BertNormalizer ByteLevel Nmt Strip StripAccents"
STEPS = st.one_of(
    st.sampled_from(NORMALIZERS.split()).map(lambda name: getattr(normalizers, name)()),
    st.builds(lambda old, new: normalizers.Replace(old, new), PARTS, PARTS),
    st.builds(lambda old, new: normalizers.Replace(Regex(old), new), PATTERNS, PARTS),
    PARTS.filter(bool).map(normalizers.Prepend),
)


def spec_of(**parts):
    backend = Tokenizer(models.BPE())
    for name, part in parts.items():
        setattr(backend, name, part)
    return json.loads(backend.to_str())


@settings(max_examples=num_examples(500), deadline=None)
@given(steps=st.lists(STEPS, max_size=4), text=TEXTS)
def test_a_normalizer_writes_no_more_than_its_bound(steps, text):
    normalizer = normalizers.Sequence(steps)
    bound = _written(spec_of(normalizer=normalizer)["normalizer"])
    longest = bound * (len(text) + 1)  # an expression that matches nothing matches at the end, too
    try:
        written = normalizer.normalize_str(text)
    except (
        BaseException
    ) as error:  # the library, as of 0.23, panics on some expressions that match nothing
        assume(type(error).__name__ != "PanicException")
        raise
    assert len(written) <= longest


@settings(max_examples=num_examples(200), deadline=None)
@given(text=TEXTS, number=st.integers(1, 3))
def test_a_splitter_writes_no_more_than_its_bound(text, number):
    steps = [pre_tokenizers.ByteLevel(add_prefix_space=False), pre_tokenizers.Metaspace()] * number
    splitter = pre_tokenizers.Sequence(steps)
    bound = _written(spec_of(pre_tokenizer=splitter)["pre_tokenizer"])
    assert sum(len(part) for part, _ in splitter.pre_tokenize_str(text)) <= bound * len(text)


def test_known_tokenizers_are_below_the_limits():
    n, d = normalizers, decoders
    quotes = [n.Replace("``", '"'), n.Replace("''", '"')]
    forms = [n.NFKD(), n.StripAccents(), n.Lowercase(), n.NFKC()]
    albert = n.Sequence([*quotes, *forms, n.Replace(Regex(" {2,}"), " ")])
    assert _written(spec_of(normalizer=albert)["normalizer"]) <= MAX_WRITTEN
    llama = d.Sequence([d.Replace("▁", " "), d.ByteFallback(), d.Fuse(), d.Strip(" ", 1, 0)])
    for decoder in (llama, d.ByteLevel(), d.WordPiece(), d.Metaspace(), d.BPEDecoder(), d.CTC()):
        splitter = pre_tokenizers.Metaspace()
        spec = spec_of(normalizer=albert, pre_tokenizer=splitter, decoder=decoder)
        assert excess(spec) is None
    split = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex("a"), "isolated"), pre_tokenizers.ByteLevel()]
    )
    assert excess(spec_of(normalizer=n.NFC(), pre_tokenizer=split, decoder=d.ByteLevel())) is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": {"vocab": {"a" * 5000: 0}}}, "has a token of 5,000 characters"),
        ({"model": {"vocab": [["a" * 5000, 0.0]]}}, "has a token of 5,000 characters"),
        ({"added_tokens": [{"content": "a" * 5000}]}, "has a token of 5,000 characters"),
        ({"model": {"max_input_chars_per_word": 10**9}}, "reads words of 1,000,000,000 characters"),
        (
            {"decoder": {"type": "Replace", "pattern": {"String": "q"}, "content": "a" * 10**6}},
            "to 1,000,000",
        ),
        (
            {"normalizer": {"type": "Replace", "pattern": {"String": "q"}, "content": "a" * 10**6}},
            "one character into 1,000,000",
        ),
    ],
)
def test_a_tokenizer_beyond_a_limit_is_refused(change, says):
    assert says in excess(change)


@settings(max_examples=num_examples(300), deadline=None)
@given(tokens=st.sets(st.text("ab<é|🙂 \n", max_size=5)), text=st.text("ab<é|🙂 \n\0", max_size=60))
def test_tokens_are_found_as_by_a_regular_expression_of_alternatives(tokens, text):
    import re

    wanted = [re.escape(token) for token in sorted(tokens, key=len, reverse=True) if token]
    expected = [match.span() for match in re.finditer("|".join(wanted) or "(?!)", text)]
    finder = TokenFinder(tokens)
    assert finder.find(text) == expected
    assert finder.first(text) == (expected[0] if expected else (-1, 0))
