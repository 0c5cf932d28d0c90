"""Conversion of a SentencePiece model to a backend of the tokenizers library with the same ids.

Pieces that stand for no text (`<unk>`, bytes, control symbols) get a score that keeps them from
matching text that merely looks like them. (One exception: of two unigram segmentations with the
same probability, such as e+ee and ee+e, SentencePiece's 32-bit sums may choose the other one.)
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from convo_cli.text.spiece.piece_model import (
    BPE,
    NORMAL,
    SPACE_MARK,
    UNIGRAM,
    USER_DEFINED,
    PieceModel,
)
from convo_cli.text.tokenizers.expansion import SEVERAL_SPACES
from convo_cli.text.tokenizers.vocabulary import MARK

_NEVER_MATCHED = -1e6
_ALWAYS_MATCHED = 1e3
"""For each character of a symbol that the author of the model defined."""
_COMPOSING = ("nfkc", "nmt_nfkc", "nfkc_cf", "nmt_nfkc_cf")
"""Rules whose result is composed. `Precompiled` looks at one grapheme at a time and misses the
compositions of longer ones, such as decomposed Hangul or half-width Katakana with a voicing mark.
"""


def backend_model(
    pieces: PieceModel,
    ids: Mapping[str, int] | None = None,
    never_matched: Collection[str] = (),
) -> models.Model:
    """Return the model of the pieces; ``ids`` states the id of each token, by default its index.

    ``ids`` may hold further tokens, which no text matches, like the pieces in ``never_matched``.
    """
    if ids is None:
        ids = {text: index for index, text in enumerate(pieces.texts)}
    unk = ids[pieces.texts[pieces.unk_index]]
    scores = {
        text: score for text, score in _text_scores(pieces).items() if text not in never_matched
    }
    by_id = {index: text for text, index in ids.items()}
    names = [by_id.get(index, f"{MARK}unused {index}{MARK}") for index in range(max(by_id) + 1)]
    if pieces.kind == UNIGRAM:
        entries = [(name, scores.get(name, _NEVER_MATCHED)) for name in names]
        return models.Unigram(entries, unk_id=unk, byte_fallback=pieces.byte_fallback)
    merges = _merges(scores) if pieces.kind == BPE else []
    vocabulary = {name: index for index, name in enumerate(names)}
    return models.BPE(
        vocabulary,
        merges,
        unk_token=names[unk],
        fuse_unk=True,
        byte_fallback=pieces.byte_fallback,
        ignore_merges=USER_DEFINED in pieces.kinds,  # a symbol is one token without any merge
    )


def backend_of(
    pieces: PieceModel,
    model: models.Model,
    *,
    first_steps: Sequence[normalizers.Normalizer],
    prefix: str,
) -> Tokenizer:
    """Return the tokenizer of a model, with the normalization of the pieces.

    ``first_steps`` come before it. ``prefix`` says where a space is put before a text: "always",
    "first" (only before the first text of all) or "never".
    """
    backend = Tokenizer(model)
    is_decomposed = any(isinstance(step, normalizers.NFKD) for step in first_steps)
    steps = [*first_steps, *_charsmap(pieces, is_decomposed=is_decomposed)]
    if pieces.removes_spaces:
        outer = Regex(rf"\A |(?<![ {SPACE_MARK}])[ {SPACE_MARK}]+\z")
        steps += [normalizers.Replace(Regex(SEVERAL_SPACES), " "), normalizers.Replace(outer, "")]
    if prefix == "always":
        steps.append(normalizers.Prepend(SPACE_MARK))
    steps.append(normalizers.Replace(" ", SPACE_MARK))
    backend.normalizer = normalizers.Sequence(steps)
    if prefix == "first":
        backend.pre_tokenizer = pre_tokenizers.Metaspace(
            replacement=SPACE_MARK, prepend_scheme="first", split=False
        )
    written = [decoders.Replace(SPACE_MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefix != "never" or pieces.removes_spaces:
        written.append(decoders.Strip(" ", 1, 0))
    backend.decoder = decoders.Sequence(written)
    kinds = zip(pieces.texts, pieces.kinds, strict=True)
    symbols = [text for text, kind in kinds if kind == USER_DEFINED]
    if pieces.kind != UNIGRAM and symbols:  # a Unigram model finds them by their scores
        if prefix == "never" and not pieces.removes_spaces:
            backend.add_tokens([AddedToken(text, normalized=True) for text in symbols])
        else:  # the normalization would change the symbols as well
            cut = pre_tokenizers.Split(Regex(_any_of(symbols)), "isolated")
            before = [backend.pre_tokenizer] if prefix == "first" else []
            backend.pre_tokenizer = pre_tokenizers.Sequence([*before, cut])
    return backend


def _charsmap(pieces: PieceModel, *, is_decomposed: bool) -> list[normalizers.Normalizer]:
    """Return the normalization rules as steps; after NFKD, the class itself composes."""
    if not pieces.charsmap:
        return []
    step = normalizers.Precompiled(pieces.charsmap)
    if pieces.normalizer in _COMPOSING:
        return [normalizers.NFC(), step, normalizers.NFC()] if not is_decomposed else [step]
    return [step]


def _text_scores(pieces: PieceModel) -> dict[str, float]:
    """Return the score of each piece that a text can match, for BPE without user's symbols."""
    scores = dict[str, float]()
    for text, score, kind in zip(pieces.texts, pieces.scores, pieces.kinds, strict=True):
        if kind == NORMAL:
            scores[text] = score
        elif kind == USER_DEFINED and pieces.kind == UNIGRAM:
            scores[text] = _ALWAYS_MATCHED * len(text)
    return scores


def _any_of(symbols: Iterable[str]) -> str:
    """Return a pattern of the longest symbol at a place; it looks at one first character once."""
    rests = dict[str, list[str]]()
    for symbol in sorted(symbols, key=len, reverse=True):
        rests.setdefault(symbol[0], []).append(re.escape(symbol[1:]))
    return "|".join(f"{re.escape(first)}(?:{'|'.join(more)})" for first, more in rests.items())


def _merges(scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """Return every pair of pieces that is a piece, in the order in which SentencePiece merges."""
    # The sort is stable: pieces of the same score keep the order of the model.
    return [
        (piece[:cut], piece[cut:])
        for piece in sorted(scores, key=lambda text: -scores[text])
        for cut in range(1, len(piece))
        if piece[:cut] in scores and piece[cut:] in scores
    ]
