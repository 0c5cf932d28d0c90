"""Tokenizers trained with SentencePiece on the dialogues, and special tokens for any tokenizer.

A trained tokenizer is stored twice: as `spiece.model` for SentencePiece, and as `tokenizer.json`,
which transformers reads without protobuf. Both give the same ids: the model is trained without
normalisation, without a dummy prefix and with byte fallback, and the pieces that stand for no text
(`<unk>`, the bytes) get a score that keeps them from matching text that merely looks like them.
(One exception: of two unigram segmentations with the same probability, such as e+ee and ee+e,
SentencePiece's 32-bit sums may choose the other one.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from convo_cli.config.schema import TokenizerConfig
from convo_cli.errors import DataError, ModelError, first_line
from convo_cli.text.templates.pieces import special_tokens
from convo_cli.text.tokenizers.training_process import TrainingError, train_in_process
from convo_cli.text.tokenizers.vocabulary import close_gaps, settle_ids

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor
    from transformers import PreTrainedTokenizerBase

SPIECE_FILE = "spiece.model"
SPACE_MARK = "▁"  # U+2581: SentencePiece's form of a space inside a piece
_NEVER_MATCHED = -1e6
_ASCII = "".join(chr(code) for code in range(0x21, 0x7F))
_NUM_THREADS = 16
"""A constant, because the scores of a unigram model, and so the ids, depend on it."""
_MAX_TRAINING_CHARACTERS = 50_000_000
"""About 100 MB of text, because SentencePiece holds its corpus in memory."""
_MAX_LINE_CHARACTERS = 1000
"""SentencePiece takes time quadratic in the length of a line that repeats itself."""


def train_sentencepiece(texts: Iterable[str], config: TokenizerConfig) -> bytes:
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
        return train_in_process(_lines(texts), settings)
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


def _lines(texts: Iterable[str]) -> Iterator[str]:
    """Yield the lines of the texts, SentencePiece's sentences, up to a bounded total."""
    total = 0
    for text in texts:
        for line in text.splitlines():
            for part in _parts(line):
                total += len(part)
                if total > _MAX_TRAINING_CHARACTERS:
                    return
                yield part


def _parts(line: str) -> Iterator[str]:
    """Cut a long line before spaces where it has them, as SentencePiece cuts it into words."""
    start = 0
    while len(line) - start > _MAX_LINE_CHARACTERS:
        limit = start + _MAX_LINE_CHARACTERS
        space = line.rfind(" ", start + 1, limit + 1)
        yield line[start : (end := limit if space < 0 else space)]
        start = end
    yield line[start:]


def from_sentencepiece(model: bytes) -> PreTrainedTokenizerBase:
    """Return a transformers tokenizer that gives the same ids as the SentencePiece model."""
    from sentencepiece import SentencePieceProcessor
    from transformers import PreTrainedTokenizerFast

    try:
        processor = SentencePieceProcessor(model_proto=model)
    except RuntimeError as error:
        raise ModelError(f"not a SentencePiece model: {error}") from error
    backend = Tokenizer(_backend_model(processor))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(
        replacement=SPACE_MARK, prepend_scheme="never", split=False
    )
    backend.decoder = decoders.Sequence(
        [decoders.Replace(SPACE_MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token=processor.id_to_piece(processor.unk_id()),
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


def _backend_model(processor: SentencePieceProcessor) -> models.Model:
    """Convert the pieces to a model of tokenizers: Unigram by scores, BPE by the implied merges."""
    size = processor.get_piece_size()
    pieces = [processor.id_to_piece(index) for index in range(size)]
    scores = [processor.get_score(index) for index in range(size)]
    is_text = [
        not (processor.is_unknown(i) or processor.is_control(i) or processor.is_byte(i))
        for i in range(size)
    ]
    if _is_unigram(scores, is_text):
        entries = [
            (piece, score if text else _NEVER_MATCHED)
            for piece, score, text in zip(pieces, scores, is_text, strict=True)
        ]
        return models.Unigram(entries, unk_id=processor.unk_id(), byte_fallback=True)
    ids = {piece: index for index, piece in enumerate(pieces)}
    textual = {piece for piece, text in zip(pieces, is_text, strict=True) if text}
    merges = [
        (piece[:cut], piece[cut:])
        for piece in sorted((p for p in textual if len(p) > 1), key=lambda p: ids[p])
        for cut in range(1, len(piece))
        if piece[:cut] in textual and piece[cut:] in textual
    ]
    return models.BPE(
        ids, merges, unk_token=pieces[processor.unk_id()], fuse_unk=True, byte_fallback=True
    )


def _is_unigram(scores: list[float], is_text: list[bool]) -> bool:
    """Return whether the scores are of a Unigram model; those of BPE are the order 0, -1, -2 …"""
    return any(score != int(score) for score, text in zip(scores, is_text, strict=True) if text)
