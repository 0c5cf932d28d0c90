"""Tokenizers trained with SentencePiece on the dialogues, and special tokens for any tokenizer.

A trained tokenizer is stored twice: as `spiece.model` for SentencePiece, and as `tokenizer.json`,
which transformers reads without protobuf. Both give the same ids: the model is trained without
normalisation, without a dummy prefix and with byte fallback (see `convo_cli.text.spiece`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers

from convo_cli.config.schema import TokenizerConfig
from convo_cli.errors import DataError, first_line
from convo_cli.text.spiece.conversion import backend_model
from convo_cli.text.spiece.piece_model import SPACE_MARK, SPIECE_FILE, read_pieces
from convo_cli.text.templates.pieces import special_tokens
from convo_cli.text.tokenizers.text_sample import TextSample
from convo_cli.text.tokenizers.training_process import TrainingError, train_in_process
from convo_cli.text.tokenizers.vocabulary import close_gaps, settle_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ASCII = "".join(chr(code) for code in range(0x21, 0x7F))
_NUM_THREADS = 16
"""A constant, because the scores of a unigram model, and so the ids, depend on it."""


def train_sentencepiece(texts: Iterable[str], config: TokenizerConfig) -> bytes:
    """Train a SentencePiece model on texts, like `train_on_sample`."""
    with TemporaryFile() as spool:
        return train_on_sample(TextSample(spool, texts), config)


def train_on_sample(sample: TextSample, config: TokenizerConfig) -> bytes:
    """Train a SentencePiece model and return it in SentencePiece's own format.

    Raises DataError if there is too little text for a vocabulary of this kind.
    """
    settings = {
        "model_type": config.kind,
        "vocab_size": config.vocab_size,
        "character_coverage": config.character_coverage,
        "hard_vocab_limit": False,
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "add_dummy_prefix": False,
        "remove_extra_whitespaces": False,
        "split_digits": True,
        "required_chars": _ASCII,
        "max_sentence_length": 1 << 24,
        "unk_id": 0,
        "bos_id": -1,
        "eos_id": -1,
        "pad_id": -1,
        "num_threads": _NUM_THREADS,
        "minloglevel": 2,
    }
    try:
        return train_in_process(sample, settings)
    except TrainingError as error:
        if needed := re.search(r"smaller than required_chars\. \d+ vs (\d+)", str(error)):
            raise DataError(
                f"tokenizer.vocab_size is {config.vocab_size}, but the characters of the training "
                f"text and the bytes need {needed[1]} pieces",
                hint="raise tokenizer.vocab_size, or lower tokenizer.character_coverage",
            ) from error
        raise DataError(
            f"SentencePiece could not train a {config.kind} tokenizer of {config.vocab_size} "
            f"pieces ({first_line(error)})",
            hint="the training text may be too small: lower tokenizer.vocab_size, or set "
            "tokenizer.kind: unigram",
        ) from error


def from_sentencepiece(model: bytes) -> PreTrainedTokenizerBase:
    """Return a transformers tokenizer that gives the same ids as convo's SentencePiece model."""
    from transformers import PreTrainedTokenizerFast

    pieces = read_pieces(model, SPIECE_FILE)
    backend = Tokenizer(backend_model(pieces))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(
        replacement=SPACE_MARK, prepend_scheme="never", split=False
    )
    backend.decoder = decoders.Sequence(
        [decoders.Replace(SPACE_MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token=pieces.texts[pieces.unk_index],
        clean_up_tokenization_spaces=False,
    )


def keep_special_tokens_whole(tokenizer: PreTrainedTokenizerBase) -> None:
    """Reset ``split_special_tokens``, with which apply_chat_template encodes role tokens as text.

    Texts of turns are encoded without special tokens anyway.
    """
    if tokenizer.split_special_tokens:
        tokenizer.split_special_tokens = tokenizer.init_kwargs["split_special_tokens"] = False
        tokenizer.backend_tokenizer.encode_special_tokens = False


def add_special_tokens(
    tokenizer: PreTrainedTokenizerBase, tokens: Iterable[str]
) -> tuple[str, ...]:
    """Add the tokens the tokenizer lacks, as special tokens; return those that were new."""
    vocabulary = tokenizer.get_vocab()
    special = special_tokens(tokenizer)
    new = tuple(token for token in tokens if token not in vocabulary)
    plain = [token for token in tokens if token not in special]
    if plain:
        close_gaps(tokenizer, "the model")
        added = [AddedToken(token, special=True, normalized=False) for token in plain]
        tokenizer.add_special_tokens(
            {"extra_special_tokens": added}, replace_extra_special_tokens=False
        )
        settle_ids(tokenizer, {}, "the model")
    return new
