"""A SentencePiece tokenizer that transformers cannot convert has the ids of SentencePiece."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from sentencepiece import SentencePieceProcessor

from convo_cli.errors import ModelError
from convo_cli.text.bounded.trial import try_tokenizer
from convo_cli.text.spiece.agreement import compare, sentencepieces
from convo_cli.text.spiece.slow_tokenizer import find_slow_tokenizer
from convo_cli.text.templates.pieces import special_tokens
from convo_cli.text.tokenizers.plain_text import plain_text_backend
from convo_cli.text.tokenizers.pretrained import open_tokenizer
from tests.slow_tokenizers import BYTES, FORERUNNER, HARD, STATED, save, texts, train

STANDARD = {"unk_id": 0, "bos_id": 1, "eos_id": 2}
T5 = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
ALBERT = {**FORERUNNER, "control_symbols": ["[CLS]", "[SEP]"]}
FAIRSEQ = {0: 3, 1: 0, 2: 2}
CLASSES: dict[str, Any] = {
    "BertGenerationTokenizer": (FORERUNNER, STATED, {}),
    "T5Tokenizer": (T5, {"extra_ids": 100}, {}),
    "ReformerTokenizer": (STANDARD, {}, {}),
    "BigBirdTokenizer": (STANDARD, {}, {}),
    "RemBertTokenizer": (STANDARD, {}, {}),
    "LlamaTokenizer": ({**STANDARD, **BYTES}, {"legacy": True}, {}),
    "TokenizersBackend": ({**STANDARD, **BYTES, "add_dummy_prefix": False}, {}, {}),
    "XLMRobertaTokenizer": (STANDARD, {}, FAIRSEQ),
    "XGLMTokenizer": (STANDARD, {}, FAIRSEQ),
    "MBartTokenizer": (STANDARD, {}, FAIRSEQ),
    "CamembertTokenizer": (STANDARD, {}, {0: 3}),
    "GPTSw3Tokenizer": ({**FORERUNNER, **BYTES, "eos_piece": "<|endoftext|>"}, {}, {}),
    "AlbertTokenizer": (ALBERT, {"keep_accents": True, "do_lower_case": False}, {}),
    "XLNetTokenizer": ({**STANDARD, "user_defined_symbols": ["<eop>", "<eod>"]}, {}, {}),
}
"""For each class the arguments of training, what is stated, and ids that are no fixed shift."""
SHIFTS = {"CamembertTokenizer": 4, **dict.fromkeys(
    ("XLMRobertaTokenizer", "XGLMTokenizer", "MBartTokenizer"), 1)}  # fmt: skip
VOCABULARY_FILES = {
    "LlamaTokenizer": "tokenizer.model", "TokenizersBackend": "tokenizer.model",
    "RemBertTokenizer": "sentencepiece.model", "CamembertTokenizer": "sentencepiece.bpe.model",
    "XLMRobertaTokenizer": "sentencepiece.bpe.model", "XGLMTokenizer": "sentencepiece.bpe.model",
    "MBartTokenizer": "sentencepiece.bpe.model",
}  # fmt: skip


def const(value):
    return lambda texts: value


def plain(tokenizer):
    """Return the ids of texts as of the words of a speaker."""
    special = special_tokens(tokenizer)
    backend = plain_text_backend(tokenizer, (), special - {tokenizer.unk_token})
    return lambda texts: [one.ids for one in backend.encode_batch(texts, add_special_tokens=False)]


def folder_of(name, folder):
    settings, stated, _ = CLASSES[name]
    stated = {**stated, "tokenizer_class": name}
    file = VOCABULARY_FILES.get(name, "spiece.model")
    return save(folder, train(**settings), stated, name=file)


@pytest.mark.parametrize("name", CLASSES)
def test_texts_get_the_ids_of_sentencepiece(name, tmp_path):
    settings, _, others = CLASSES[name]
    tokenizer = open_tokenizer(folder_of(name, tmp_path), name)
    shift, processor = SHIFTS.get(name, 0), SentencePieceProcessor(model_proto=train(**settings))
    trained = [text for text in texts() if "``" not in text and "''" not in text]
    if name == "XLNetTokenizer":  # it also removes accents and cuts numbers, see below
        trained = [text for text in trained if text.isascii() and "," not in text]
    expected = [
        [others.get(index, index + shift) for index in ids] for ids in processor.encode(trained)
    ]
    assert plain(tokenizer)(trained) == expected


@pytest.mark.parametrize("name", CLASSES)
def test_the_changes_of_a_class_are_those_of_its_slow_form(name, tmp_path):
    """Expected are the class's own Python, then SentencePiece; a tie may fall either way."""
    folder = folder_of(name, tmp_path)
    tokenizer: Any = open_tokenizer(folder, name)
    slow = find_slow_tokenizer(folder, name)
    spoken = [*texts(), *HARD]
    ids = plain(tokenizer)
    found = compare(
        slow,
        spoken,
        sentencepieces(slow, spoken, name),
        lambda texts: [tokenizer.convert_ids_to_tokens(one) for one in ids(texts)],
    )
    assert [str(one) for one in found.differences] == []
    assert found.num_texts == len(spoken)


@pytest.mark.parametrize("legacy", [True, False])
def test_a_prefix_that_only_the_first_text_gets_passes_the_trial(legacy, tmp_path):
    spiece = train(**STANDARD, **BYTES)
    stated = {"tokenizer_class": "LlamaTokenizer", "legacy": legacy}
    folder = save(tmp_path, spiece, stated, name="tokenizer.model")
    assert try_tokenizer(folder, "model") == ()
    hello = plain(open_tokenizer(folder, "model"))(["Hello"])[0]
    processor = SentencePieceProcessor(model_proto=spiece)
    assert (hello == processor.encode("Hello")) is legacy


@pytest.mark.parametrize("name", ["XLNetTokenizer", "AlbertTokenizer"])
def test_the_changes_of_a_class_stay_within_the_bounds_of_a_tokenizer(name, tmp_path):
    stated = {"tokenizer_class": name, "keep_accents": False, "do_lower_case": True}
    settings = {**ALBERT, "user_defined_symbols": ["<eop>", "<eod>"]}
    assert try_tokenizer(save(tmp_path, train(**settings), stated), name) == ()


def test_decoding_gives_the_text_of_sentencepiece(tmp_path):
    for settings, stated in (
        (FORERUNNER, STATED),
        ({**STANDARD, **BYTES}, {"tokenizer_class": "LlamaTokenizer"}),
        (T5, {"tokenizer_class": "T5Tokenizer"}),
    ):
        spiece = train(**settings)
        tokenizer = open_tokenizer(save(tmp_path, spiece, stated, name="tokenizer.model"), "model")
        processor = SentencePieceProcessor(model_proto=spiece)
        for ids in processor.encode(list(texts())):
            if processor.unk_id() not in ids:
                assert tokenizer.decode(ids) == processor.decode(ids)


def test_the_forerunners_special_tokens_keep_their_ids(tmp_path):
    tokenizer = open_tokenizer(save(tmp_path, train(**FORERUNNER), STATED), "model")
    wanted = {"<pad>": 0, "<unk>": 1, "<s>": 2, "</s>": 3, "<cls>": 4, "<sep>": 5}
    assert {token: tokenizer.convert_tokens_to_ids(token) for token in wanted} == wanted
    assert special_tokens(tokenizer) == set(wanted)
    assert tokenizer.sep_token_id == 5
    assert tokenizer.encode("a<sep>b") == [*tokenizer.encode("a"), 5, *tokenizer.encode("b")]
    assert 5 not in plain(tokenizer)(["a<sep>b"])[0]


def test_extra_tokens_of_a_class_get_the_last_ids(tmp_path):
    spiece = train(**T5)
    size = SentencePieceProcessor(model_proto=spiece).get_piece_size()
    stated = {"tokenizer_class": "T5Tokenizer"}
    tokenizer = open_tokenizer(save(tmp_path, spiece, stated), "model")
    assert tokenizer.convert_tokens_to_ids(["<extra_id_0>", "<extra_id_99>"]) == [size + 99, size]
    assert tokenizer.encode("a")[-1] == tokenizer.eos_token_id == 1
    rinna = {**stated, "extra_ids": 0}
    assert len(open_tokenizer(save(tmp_path, spiece, rinna), "model")) == size


def test_a_default_token_that_the_model_has_no_row_for_is_left_out(tmp_path):
    spiece = train(**T5)
    size = SentencePieceProcessor(model_proto=spiece).get_piece_size()
    config = {"model_type": "gpt2", "vocab_size": size}
    stated = {"tokenizer_class": "T5Tokenizer"}
    assert len(open_tokenizer(save(tmp_path, spiece, stated, config=config), "model")) == size


def test_gpt2_with_a_bare_model_has_the_ids_of_the_model(tmp_path):
    """transformers 5.23 makes a tokenizer of four tokens of it."""
    spiece = train(**FORERUNNER)
    tokenizer = open_tokenizer(save(tmp_path, spiece), "model")
    processor = SentencePieceProcessor(model_proto=spiece)
    assert len(tokenizer) == processor.get_piece_size()
    assert plain(tokenizer)(list(texts())) == processor.encode(list(texts()))
    named = (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id)
    assert (*named, tokenizer.eos_token_id) == (0, 1, 2, 3)


def test_added_tokens_keep_their_stated_ids(tmp_path):
    spiece = train(**FORERUNNER)
    size = SentencePieceProcessor(model_proto=spiece).get_piece_size()
    added = {
        str(size + at): {"content": token, "special": True, "lstrip": False, "rstrip": False,
                         "normalized": False, "single_word": False}
        for at, token in enumerate(["<a>", "<b>"])
    }  # fmt: skip
    folder = save(tmp_path, spiece, {**STATED, "added_tokens_decoder": added})
    tokenizer = open_tokenizer(folder, "model")
    assert tokenizer.convert_tokens_to_ids(["<a>", "<b>"]) == [size, size + 1]


@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_symbols_of_the_author_are_found_as_by_sentencepiece(kind, prefix, tmp_path):
    settings = {"model_type": kind, "add_dummy_prefix": prefix}
    spiece = train(**settings, user_defined_symbols=["...", "you", "안녕", "<b>"])
    tokenizer = open_tokenizer(save(tmp_path, spiece), "model")
    processor = SentencePieceProcessor(model_proto=spiece)
    assert any(processor.piece_to_id("you") in ids for ids in processor.encode(list(texts())))
    spoken = [*texts(), "...you you... 안녕<b>", "<b> <b>"]
    assert plain(tokenizer)(spoken) == processor.encode(spoken)


@pytest.mark.parametrize("name", ["CpmTokenizer", "DebertaV2Tokenizer", "GPT2Tokenizer", "Own"])
def test_a_class_that_convo_does_not_know_is_refused_by_name(name, tmp_path):
    folder = save(tmp_path, train(**FORERUNNER), {**STATED, "tokenizer_class": name})
    with pytest.raises(ModelError, match=f'spiece.model for the tokenizer class "{name}"') as error:
        open_tokenizer(folder, "model")
    assert "save a fast tokenizer with plain transformers" in error.value.hint


def test_a_model_of_whole_words_is_refused(tmp_path):
    folder = save(tmp_path, train(model_type="word", **FORERUNNER), STATED)
    with pytest.raises(ModelError, match=r"spiece\.model: a SentencePiece model of whole words"):
        open_tokenizer(folder, "model")


def test_a_conversion_that_differs_is_found(tmp_path):
    folder = save(tmp_path, train(**FORERUNNER), STATED)
    slow = find_slow_tokenizer(folder, "model")
    spoken = list(texts())[:20]
    truth = sentencepieces(slow, spoken, "model")
    changed = [[*pieces[:-1], "wrong"] if at == 3 else pieces for at, pieces in enumerate(truth)]
    found = compare(slow, spoken, truth, lambda texts: changed)
    (difference,) = found.differences
    assert difference.text == spoken[3]
    assert 'has the pieces "wrong", but' in str(difference)


def test_only_cuts_of_the_same_probability_are_ties(tmp_path):
    folder = save(tmp_path, train(**FORERUNNER), STATED)
    slow = find_slow_tokenizer(folder, "model")
    one, *_, other = [text for text in slow.pieces.texts[6:40] if len(text) == 1][:2]
    scores = dict(zip(slow.pieces.texts, slow.pieces.scores, strict=True))
    assert not math.isclose(scores[one], scores[other], rel_tol=1e-5)
    for ours, theirs, num_ties in (
        ([one, other], [other, one], 0),  # another text
        ([one, one + one], [one + one, one], 1),
        ([one], [other], 0),
        ([one, "<unk>"], [one], 0),
    ):
        slow.pieces.texts[-1] = one + one
        found = compare(slow, ["x"], [theirs], const([ours]))
        assert (found.num_ties, len(found.differences)) == (num_ties, 1 - num_ties)


def test_a_folder_with_tokenizer_json_or_another_vocabulary_is_left_alone(tmp_path):
    folder = save(tmp_path, train(**FORERUNNER))
    (folder / "vocab.json").write_text("{}")
    assert find_slow_tokenizer(folder, "model") is None
    (folder / "vocab.json").unlink()
    assert find_slow_tokenizer(folder, "model") is not None
    (folder / "tokenizer.json").write_text(json.dumps({}))
    assert find_slow_tokenizer(Path(folder), "model") is None
