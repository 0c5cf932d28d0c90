"""Tokenizers: a pretrained model's own, or a SentencePiece model trained on the training dialogues.

A trained one is kept twice: `spiece.model`, which SentencePiece reads, and `tokenizer.json`, which transformers reads
without protobuf. Both give the same ids, because the model is trained without normalisation, without a dummy prefix
and with byte fallback, and because the pieces that stand for no text (`<unk>`, the bytes) get a score that keeps them
from matching text that merely looks like them.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from convo_cli.config.schema import TokenizerConfig
from convo_cli.errors import DataError, ModelError

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor
    from transformers import PreTrainedTokenizerBase

SPIECE_FILE = "spiece.model"
SPACE_MARK = "▁"  # U+2581: how SentencePiece writes a space inside a piece
_NEVER_MATCHED = -1e6
_ASCII = "".join(chr(code) for code in range(0x21, 0x7F))
_MAX_TRAINING_CHARACTERS = 50_000_000  # about 100 MB of text; SentencePiece holds its corpus in memory


def train_sentencepiece(texts: Iterable[str], config: TokenizerConfig) -> bytes:
    """Train a SentencePiece model and return it in SentencePiece's own format.

    Raises DataError where the texts are too few for any vocabulary of this kind.
    """
    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_lines(texts),
            model_writer=model,
            model_type=config.kind,
            vocab_size=config.vocab_size,
            character_coverage=config.character_coverage,
            hard_vocab_limit=False,
            byte_fallback=True,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            split_digits=True,
            required_chars=_ASCII,
            max_sentence_length=1 << 24,
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            num_threads=os.cpu_count() or 1,
            minloglevel=2,
        )
    except RuntimeError as error:
        is_too_small = "smaller than required_chars" in str(error)
        raise DataError(
            f"SentencePiece could not train a {config.kind} tokenizer of {config.vocab_size} pieces: {error}",
            hint="raise tokenizer.vocab_size, or lower tokenizer.character_coverage"
            if is_too_small
            else "the training text may be too small: lower tokenizer.vocab_size, or set tokenizer.kind: unigram",
        ) from error
    return model.getvalue()


def from_sentencepiece(model: bytes) -> PreTrainedTokenizerBase:
    """A transformers tokenizer that gives the same ids as the SentencePiece model."""
    from sentencepiece import SentencePieceProcessor
    from transformers import PreTrainedTokenizerFast

    try:
        processor = SentencePieceProcessor(model_proto=model)
    except RuntimeError as error:
        raise ModelError(f"not a SentencePiece model: {error}") from error
    backend = Tokenizer(_backend_model(processor))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE_MARK, prepend_scheme="never", split=False)
    backend.decoder = decoders.Sequence([decoders.Replace(SPACE_MARK, " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False)


def load_pretrained_tokenizer(source: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a Hugging Face folder or hub id; ModelError where it cannot be read or has no fast form."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision or "main", trust_remote_code=False)
    except Exception as error:  # transformers raises half a dozen types for what is one mistake to the user
        raise ModelError(
            f"{source}: no readable tokenizer ({_first_line(error)})",
            hint="a local folder needs tokenizer.json (or the files of its slow tokenizer) beside config.json",
        ) from error
    if not tokenizer.is_fast:
        raise ModelError(
            f"{source}: its tokenizer {type(tokenizer).__name__} has no fast form",
            hint="convo needs the character offsets that only fast tokenizers give",
        )
    if len(tokenizer) < 256:
        raise ModelError(
            f"{source}: its tokenizer has only {len(tokenizer)} tokens, so its vocabulary was not found",
            hint="the folder needs tokenizer.json; transformers falls back to an empty vocabulary without a word",
        )
    return tokenizer


def add_special_tokens(tokenizer: PreTrainedTokenizerBase, tokens: Iterable[str]) -> tuple[str, ...]:
    """Add the tokens the tokenizer lacks, as special tokens; return those that were new."""
    vocabulary = tokenizer.get_vocab()
    special = set(tokenizer.all_special_tokens)
    new = tuple(token for token in tokens if token not in vocabulary)
    plain = [token for token in tokens if token not in special]
    if plain:
        added = [AddedToken(token, special=True, normalized=False) for token in plain]
        tokenizer.add_special_tokens({"extra_special_tokens": added}, replace_extra_special_tokens=False)
    return new


def _lines(texts: Iterable[str]) -> Iterable[str]:
    """Texts cut at newlines (SentencePiece's sentences) up to a bounded total; NUL and the space mark never come in."""
    total = 0
    for text in texts:
        for line in text.splitlines():
            total += len(line)
            if total > _MAX_TRAINING_CHARACTERS:
                return
            yield line


def _backend_model(processor: SentencePieceProcessor) -> models.Model:
    """The pieces as a model of the tokenizers library: Unigram from scores, BPE from the merges they imply."""
    size = processor.get_piece_size()
    pieces = [processor.id_to_piece(index) for index in range(size)]
    scores = [processor.get_score(index) for index in range(size)]
    is_text = [not (processor.is_unknown(i) or processor.is_control(i) or processor.is_byte(i)) for i in range(size)]
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
    return models.BPE(ids, merges, unk_token=pieces[processor.unk_id()], fuse_unk=True, byte_fallback=True)


def _is_unigram(scores: list[float], is_text: list[bool]) -> bool:
    """Unigram scores are log-probabilities; BPE scores are the whole numbers 0, -1, -2 … of the merge order."""
    return any(score != int(score) for score, text in zip(scores, is_text, strict=True) if text)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
