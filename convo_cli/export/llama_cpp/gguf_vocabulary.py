"""Vocabulary of a tokenizer as llama.cpp reads it: texts, types, scores and merges by id.

    byte-level bpe      gpt2     the merges, and a name for the rules that cut words
    sentencepiece bpe   llama    a score for each piece: the first merge that yields it
    unigram             plamo2   the pieces' scores, with spaces instead of their marks

llama.cpp's unigram tokenizer (t5) has no byte fallback, but that of PLaMo 2 has. They differ from
SentencePiece in a run of one character, which has several cuts of the same score.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from convo_cli.errors import ModelError
from convo_cli.export.llama_cpp.gguf_families import OTHER_FORMAT
from convo_cli.export.llama_cpp.gguf_text_rules import (
    SPACE_MARK,
    adds_space_of,
    pre_tokenizer_of,
    tokenizer_objection,
)
from convo_cli.export.tokenizer_kinds import tokenizer_json_kind
from convo_cli.text.tokenizers.expansion import MAX_TOKEN_CHARACTERS
from convo_cli.wording import quoted

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""Types of tokens, as llama.cpp numbers them."""
_MAX_ADDED = 2**16
"""llama.cpp searches a text once for each added token."""
_NEVER = -10_000.0
"""A score that no text can have."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tokens of a model, one for each row of its embeddings."""

    model: str
    """llama.cpp's name of the algorithm."""
    pre: str
    texts: list[str]
    types: list[int]
    scores: list[float] | None = None
    merges: list[str] | None = None
    adds_space: bool = False
    """A space is put before a text, and before each text after a special token."""


def vocabulary_of(
    spec: Mapping[str, Any], written_tokens: Collection[str], num_rows: int
) -> Vocabulary:
    """Return the vocabulary of a tokenizer.json for a model of so many rows.

    ``written_tokens`` are those of the template. Raises ModelError if llama.cpp cannot hold it.
    """
    if reason := tokenizer_objection(spec):
        raise ModelError(f"GGUF cannot hold this tokenizer: {reason}", hint=OTHER_FORMAT)
    model, added = spec["model"], spec.get("added_tokens") or []
    if len(added) > _MAX_ADDED:
        raise ModelError(
            f"the tokenizer has {len(added):,} added tokens, but at most {_MAX_ADDED:,} are "
            "allowed",
            hint=OTHER_FORMAT,
        )
    tokens = dict(_words(model)) | {token["id"]: token["content"] for token in added}
    if not tokens or min(tokens) < 0 or max(tokens) >= num_rows:
        raise ModelError(
            f"the tokenizer has ids up to {max(tokens, default=0):,}, but the model has "
            f"{num_rows:,} rows of embeddings",
            hint="restore the files of the checkpoint",
        )
    _require_plain(added, written_tokens)
    special = {token["id"] for token in added if token["special"]}
    special |= {token["id"] for token in added if token["content"] in written_tokens}
    user_defined = {token["id"] for token in added} - special
    kind = tokenizer_json_kind(dict(spec))
    texts, types = list[str](), list[int]()
    for index in range(num_rows):
        text = tokens.get(index, "")
        texts.append(text or f"[PAD{index}]")
        if not text:
            types.append(UNUSED)
        elif index in special:
            is_unknown = kind != "byte-level bpe" and text == _unknown_token(model)
            types.append(UNKNOWN if is_unknown else CONTROL)
        elif index in user_defined:
            types.append(USER_DEFINED)
        elif kind != "byte-level bpe" and _is_byte(text):
            types.append(BYTE)
        else:
            types.append(NORMAL)
    if kind == "byte-level bpe":
        pre = pre_tokenizer_of(spec)
        assert pre is not None, "checked by tokenizer_objection"
        merges = [" ".join(pair) for pair in _pairs(model)]
        found = Vocabulary("gpt2", pre, texts, types, merges=merges)
    elif kind == "unigram":
        texts = [
            text.replace(SPACE_MARK, " ") if type_ == NORMAL else text
            for text, type_ in zip(texts, types, strict=True)
        ]
        found = Vocabulary("plamo2", "default", texts, types, _unigram_scores(model, types))
    else:
        scores = _merge_scores(model, texts, types)
        found = Vocabulary(
            "llama", "default", texts, types, scores, adds_space=bool(adds_space_of(spec))
        )
    _require_sound(found)
    return found


def _require_plain(added: Iterable[Mapping[str, Any]], written_tokens: Collection[str]) -> None:
    """Raise ModelError for a token that llama.cpp finds in other places of a text.

    Other special tokens do not matter, because no dialogue has them.
    """
    for token in added:
        if token["special"] and token["content"] not in written_tokens:
            continue
        for name in ("lstrip", "rstrip", "single_word"):
            if token.get(name):
                raise ModelError(
                    f"GGUF cannot hold this tokenizer: llama.cpp does not apply {name} of its "
                    f"token {quoted(token['content'])}",
                    hint=OTHER_FORMAT,
                )
        if token.get("normalized") and SPACE_MARK in token["content"]:
            raise ModelError(
                "GGUF cannot hold this tokenizer: llama.cpp does not find its token "
                f"{quoted(token['content'])} where a text has a space",
                hint=OTHER_FORMAT,
            )


def _words(model: Mapping[str, Any]) -> Iterable[tuple[int, str]]:
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        return ((index, text) for text, index in vocabulary.items())
    return ((index, text) for index, (text, _) in enumerate(vocabulary))


def _pairs(model: Mapping[str, Any]) -> list[list[str]]:
    pairs = [one.split(" ") if isinstance(one, str) else one for one in model["merges"]]
    if any(len(pair) != 2 or " " in pair[0] + pair[1] for pair in pairs):
        raise ModelError(
            "a merge of the tokenizer has a space, which GGUF cannot hold", hint=OTHER_FORMAT
        )
    return pairs


def _unknown_token(model: Mapping[str, Any]) -> str | None:
    index = model.get("unk_id")
    found = model.get("unk_token") if index is None else model["vocab"][index][0]
    return None if found is None else str(found)


def _is_byte(text: str) -> bool:
    return len(text) == 6 and text.startswith("<0x") and text.endswith(">")


def _merge_scores(model: Mapping[str, Any], texts: list[str], types: list[int]) -> list[float]:
    """Return the scores by which llama.cpp merges in the order of the merges.

    llama.cpp merges any two neighbours that yield a token, the one with the highest score first.
    So all pairs that yield one token must be merges that follow each other.
    """
    pairs = _pairs(model)
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(pairs):
        ranks.setdefault("".join(pair), rank)
    order = [ranks["".join(pair)] for pair in pairs]
    merged = {(left, right) for left, right in pairs}
    words = model["vocab"]
    missing = next(
        (
            text
            for text, kind in zip(texts, types, strict=True)
            for cut in range(1, len(text))
            # A text that spells a special token has its id in any case.
            if kind not in (CONTROL, UNKNOWN, UNUSED)
            and _is_symbol(text[:cut], words)
            and _is_symbol(text[cut:], words)
            and (text[:cut], text[cut:]) not in merged
        ),
        None,
    )
    if missing is not None or any(one > other for one, other in pairwise(order)):
        raise ModelError(
            "GGUF cannot hold this tokenizer: its merges are not those of a SentencePiece model"
            + (f", as none yields {quoted(missing)} from two of its parts" if missing else ""),
            hint=OTHER_FORMAT,
        )
    return [-float(ranks.get(text, len(pairs))) for text in texts]


def _is_symbol(text: str, words: Mapping[str, int]) -> bool:
    """Return whether llama.cpp can have this text as a neighbour: a token, or one character."""
    return text in words or len(text) == 1


def _unigram_scores(model: Mapping[str, Any], types: list[int]) -> list[float]:
    """Return scores in proportion to the pieces', by which an unknown character costs the same.

    llama.cpp fixes that cost to 1,000, and SentencePiece to 10 more than that of the worst piece.
    """
    pieces = model["vocab"]
    normal = [score for (_, score), kind in zip(pieces, types, strict=False) if kind == NORMAL]
    if not normal:
        raise ModelError("the tokenizer has no piece that stands for text", hint=OTHER_FORMAT)
    worst = min(normal)
    if not all(map(math.isfinite, normal)) or worst >= 10:
        raise ModelError(
            f"the tokenizer has scores such as {worst}, which are no logarithms of probabilities",
            hint=OTHER_FORMAT,
        )
    scale = 1_000 / (10 - worst)
    scores = [
        scale * score if kind == NORMAL else _NEVER
        for (_, score), kind in zip(pieces, types, strict=False)
    ]
    return scores + [_NEVER] * (len(types) - len(scores))


def _require_sound(vocabulary: Vocabulary) -> None:
    """Raise ModelError for texts that C++ programs read differently or do not expect."""
    seen = set[str]()
    for text in vocabulary.texts:
        if len(text) > MAX_TOKEN_CHARACTERS:
            raise ModelError(
                f"the tokenizer has a token of {len(text):,} characters (at most "
                f"{MAX_TOKEN_CHARACTERS:,} are allowed)",
                hint=OTHER_FORMAT,
            )
        if "\0" in text or _has_surrogate(text):
            raise ModelError(
                f"the tokenizer has a token with NUL or half a surrogate pair: {quoted(text)}",
                hint=OTHER_FORMAT,
            )
        if text in seen:
            raise ModelError(f"the tokenizer has two tokens {quoted(text)}", hint=OTHER_FORMAT)
        seen.add(text)


def _has_surrogate(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= one <= "\udfff" for one in text)
