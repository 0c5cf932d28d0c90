"""A trained tokenizer is the same in SentencePiece and transformers; text is never a token."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor

from convo_cli.config.schema import TokenizerConfig
from convo_cli.errors import DataError, ModelError
from convo_cli.text.tokenizers.pretrained import load_pretrained_tokenizer
from convo_cli.text.tokenizers.trained import (
    add_special_tokens,
    from_sentencepiece,
    train_sentencepiece,
)
from tests.cases import num_examples
from tests.strategies import texts

KINDS: list[Literal["unigram", "bpe"]] = ["unigram", "bpe"]


@pytest.fixture(scope="module")
def training_texts(sample_dialogues):
    return [turn.text for dialogue in sample_dialogues for turn in dialogue.turns]


@pytest.fixture(scope="module")
def trained(training_texts):
    """By kind: SentencePiece itself, and the transformers tokenizer made from it."""
    made = {}
    for kind in KINDS:
        model = train_sentencepiece(training_texts, TokenizerConfig(kind=kind, vocab_size=900))
        made[kind] = (SentencePieceProcessor(model_proto=model), from_sentencepiece(model))
    return made


def ids(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)


HARD = st.one_of(
    texts(), st.text(st.sampled_from("ab eéI'1٣ \n\t 안한 あ漢🙂‍👍🏽́<>|x04"), max_size=30)
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=num_examples(200), deadline=None)
@given(text=HARD)
@example(text="  two  spaces, a tab\t and a newline\n")
@example(text="<0x41><unk> <0x0A>")
@example(text="aaaaaaaaaaa eeeeeee 1111111 .......")
def test_transformers_gives_the_ids_and_the_text_of_sentencepiece(trained, kind, text):
    processor, tokenizer = trained[kind]
    ours, theirs = ids(tokenizer, text), processor.encode(text)
    assert ours == theirs or (kind == "unigram" and sorted(ours) == sorted(theirs)), (
        "another order is a tie"
    )
    assert tokenizer.decode(ours, skip_special_tokens=True) == text == processor.decode(theirs)


MOTIFS = st.lists(st.sampled_from(["a", "b", "ab", "aba", "aab", "가", "1", " "]), max_size=30)


@pytest.fixture(scope="module")
def repetitive():
    """SentencePiece and the transformers tokenizer, with BPE pieces that overlap each other."""
    texts = [motif * times for motif in ("a", "ab", "aba", "aab", "b가") for times in range(2, 25)]
    model = train_sentencepiece(texts, TokenizerConfig(kind="bpe", vocab_size=460))
    return SentencePieceProcessor(model_proto=model), from_sentencepiece(model)


@settings(max_examples=num_examples(300), deadline=None)
@given(motifs=MOTIFS)
def test_pieces_that_overlap_are_merged_in_the_order_of_sentencepiece(repetitive, motifs):
    processor, tokenizer = repetitive
    text = "".join(motifs)
    assert ids(tokenizer, text) == processor.encode(text)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["<unk>", "<0x41>", "<0x00>", "<0xFF>"])
def test_text_that_spells_a_byte_or_the_unknown_piece_is_spelled_out(trained, kind, text):
    _, tokenizer = trained[kind]
    pieces = tokenizer.convert_ids_to_tokens(ids(tokenizer, text))
    assert text not in pieces
    assert "".join(pieces) == text


@pytest.mark.parametrize("kind", KINDS)
def test_a_character_that_training_never_saw_is_its_bytes_and_nothing_is_unknown(trained, kind):
    processor, tokenizer = trained[kind]
    assert tokenizer.convert_ids_to_tokens(ids(tokenizer, "ꙮ")) == ["<0xEA>", "<0x99>", "<0xAE>"]
    assert processor.unk_id() not in ids(tokenizer, "ꙮ \x7f \U0010fffd")


@pytest.mark.parametrize("kind", KINDS)
def test_the_folder_that_is_saved_loads_to_the_same_ids(trained, kind, tmp_path, training_texts):
    _, tokenizer = trained[kind]
    tokenizer.save_pretrained(tmp_path)
    reloaded = load_pretrained_tokenizer(str(tmp_path))
    for text in [*training_texts[:50], "<unk>", "ꙮ  \n"]:
        assert ids(reloaded, text) == ids(tokenizer, text)


# Training


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_text_gives_the_same_model_on_any_number_of_cores(
    training_texts, monkeypatch, kind
):
    config = TokenizerConfig(kind=kind, vocab_size=700)
    models = set()
    for cores in (1, 8):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        models.add(train_sentencepiece(training_texts, config))
    assert len(models) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_vocabulary_larger_than_the_text_allows_is_as_large_as_it_can_be(training_texts, kind):
    tokenizer = from_sentencepiece(
        train_sentencepiece(training_texts[:50], TokenizerConfig(kind=kind, vocab_size=50_000))
    )
    assert 300 < len(tokenizer) < 3000


@pytest.mark.parametrize("kind", KINDS)
def test_a_vocabulary_too_small_for_the_characters_is_refused_with_both_numbers(
    training_texts, kind
):
    with pytest.raises(DataError, match="300") as caught:
        train_sentencepiece(training_texts, TokenizerConfig(kind=kind, vocab_size=300))
    assert "need 629 pieces" in caught.value.message
    assert "\n" not in caught.value.message
    assert "tokenizer.vocab_size" in str(caught.value.hint)


def test_no_text_at_all_is_refused():
    with pytest.raises(DataError, match="could not train a unigram tokenizer of 400 pieces"):
        train_sentencepiece([], TokenizerConfig(vocab_size=400))


def test_an_error_in_the_data_keeps_its_own_words():
    def broken():
        yield "Hello"
        raise DataError("train.jsonl:2:1: no JSON")

    with pytest.raises(DataError, match="no JSON"):
        train_sentencepiece(broken(), TokenizerConfig(vocab_size=400))


@pytest.mark.parametrize("kind", KINDS)
def test_a_huge_line_that_repeats_itself_trains_a_tokenizer(kind):
    texts = ["hello " * 100_000, "bye " * 200_000, "x" * 1_000_000]
    made = from_sentencepiece(
        train_sentencepiece(texts, TokenizerConfig(kind=kind, vocab_size=400))
    )
    assert made.decode(made.encode("hello bye")) == "hello bye"


def test_bytes_that_are_no_model_are_refused():
    with pytest.raises(ModelError, match="not a SentencePiece model"):
        from_sentencepiece(b"nonsense")


# Special tokens and pretrained tokenizers


def test_tokens_are_added_once_as_special_tokens(spiece):
    tokenizer = from_sentencepiece(spiece)
    size = len(tokenizer)
    assert add_special_tokens(tokenizer, ("<|user|>", "<|end|>")) == ("<|user|>", "<|end|>")
    assert add_special_tokens(tokenizer, ("<|end|>", "<|user|>")) == ()
    assert len(tokenizer) == size + 2
    assert tokenizer.encode("<|user|>hi<|end|>", add_special_tokens=False)[
        :: len(ids(tokenizer, "hi")) + 1
    ] == [
        size,
        size + 1,
    ]
    assert {"<|user|>", "<|end|>"} <= set(tokenizer.all_special_tokens)


def test_a_plain_token_that_a_template_needs_becomes_special_and_is_not_new(spiece):
    tokenizer = from_sentencepiece(spiece)
    tokenizer.add_tokens(["<sep>"])
    size = len(tokenizer)
    assert add_special_tokens(tokenizer, ("<sep>",)) == ()
    assert len(tokenizer) == size
    assert "<sep>" in tokenizer.all_special_tokens


def test_earlier_special_tokens_stay_special(spiece):
    tokenizer = from_sentencepiece(spiece)
    add_special_tokens(tokenizer, ("<a>",))
    add_special_tokens(tokenizer, ("<b>",))
    assert {"<a>", "<b>"} <= set(tokenizer.all_special_tokens)


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
    with pytest.raises(ModelError, match=str(tmp_path)):
        load_pretrained_tokenizer(str(tmp_path))


def test_a_tokenizer_whose_vocabulary_was_not_found_is_refused(tmp_path):
    """GPT-2 beside a bare spiece.model: transformers silently makes an empty tokenizer of it."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    empty = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=empty).save_pretrained(tmp_path)
    with pytest.raises(
        ModelError, match=r"the vocabulary of its tokenizer was not found \(size: 1\)"
    ):
        load_pretrained_tokenizer(str(tmp_path))


def test_a_tokenizer_that_fails_at_unknown_words_is_refused(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(
        models.WordLevel({f"w{index}": index for index in range(300)}, unk_token="<unk>")
    )
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"fails on text outside its vocabulary \(.*UNK") as caught:
        load_pretrained_tokenizer(str(tmp_path))
    assert "unk_token" in str(caught.value.hint)
