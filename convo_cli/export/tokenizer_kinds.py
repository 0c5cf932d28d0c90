"""Kinds of tokenizers, by the algorithm that cuts a text into tokens."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TokenizerKind = Literal["byte-level bpe", "sentencepiece bpe", "unigram", "wordpiece", "other"]


def tokenizer_kind(tokenizer: PreTrainedTokenizerBase) -> TokenizerKind:
    """Return the kind of a tokenizer with a Rust backend."""
    backend: Any = tokenizer
    return tokenizer_json_kind(json.loads(backend.backend_tokenizer.to_str()))


def tokenizer_json_kind(stated: dict[str, Any]) -> TokenizerKind:
    """Return the kind of a tokenizer.json."""
    model = stated["model"]
    kind = model.get("type") or ("BPE" if "merges" in model else None)
    if kind == "Unigram":
        return "unigram"
    if kind == "WordPiece":
        return "wordpiece"
    if kind != "BPE":
        return "other"
    if model.get("byte_fallback"):
        return "sentencepiece bpe"
    parts = json.dumps([stated.get("pre_tokenizer"), stated.get("decoder")])
    return "byte-level bpe" if '"ByteLevel"' in parts else "other"
