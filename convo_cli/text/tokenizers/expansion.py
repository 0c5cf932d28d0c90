"""Bounds on the expansion of a text by a tokenizer, computed from the tokenizer's JSON.

The steps of a normalizer, splitter or decoder run one after the other, so their expansions
multiply: forty replacements of one character by two turn one word into terabytes. The bounds hold
for every text, also for those that no probe resembles.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from math import prod
from typing import Any

MAX_WRITTEN = 4096
"""Most characters that the model of a tokenizer may receive for one; ALBERT's bound is 3,888."""
MAX_DECODED = 16
"""Most characters that a decoder may write for one of a token; known decoders write one or two."""
MAX_TOKEN_CHARACTERS = 4096
"""Longest token; the longest known are a few hundred spaces."""
MAX_WORD_CHARACTERS = 4096
"""Longest word that WordPiece may read, which takes quadratic time; known tokenizers state 100."""
SEVERAL_SPACES = " {2,}"
WHITE_SPACE = r"[\s\x1c-\x1f]+"
_SHORTENING = (SEVERAL_SPACES, WHITE_SPACE)
"""Regular expressions that match no empty text, by which convo joins spaces."""
_FIXED = {
    "NFC": 3, "NFD": 4, "NFKC": 18, "NFKD": 18, "Lowercase": 3, "BertNormalizer": 4,
    "ByteLevel": 4, "Metaspace": 2, "Nmt": 1, "Strip": 1, "StripAccents": 1,
    "Split": 1, "Whitespace": 1, "WhitespaceSplit": 1, "BertPreTokenizer": 1,
    "CharDelimiterSplit": 1, "Punctuation": 1, "Digits": 1, "UnicodeScripts": 1, "FixedLength": 1,
    "ByteFallback": 1, "Fuse": 1,
}  # fmt: skip
"""Most characters that a step writes for one, with any settings; a step not listed counts as 2."""


def excess(spec: Mapping[str, Any]) -> str | None:
    """Return which limit a tokenizer's JSON exceeds, as words that continue a sentence, or None."""
    written = _written(spec.get("normalizer")) * _written(spec.get("pre_tokenizer"))
    if written > MAX_WRITTEN:
        return f"can turn one character into {written:,.0f} (at most {MAX_WRITTEN:,} are allowed)"
    decoded = _written(spec.get("decoder"), num_bytes=1)
    if decoded > MAX_DECODED:
        limit = f"at most {MAX_DECODED} are allowed"
        return f"can decode one character of a token to {decoded:,.0f} ({limit})"
    model = spec.get("model") or {}
    # The words of a Unigram model have scores.
    words = [word if isinstance(word, str) else word[0] for word in model.get("vocab") or ()]
    words += [token["content"] for token in spec.get("added_tokens") or ()]
    longest = max(map(len, words), default=0)
    if longest > MAX_TOKEN_CHARACTERS:
        limit = f"at most {MAX_TOKEN_CHARACTERS:,} are allowed"
        return f"has a token of {longest:,} characters ({limit})"
    if (word := model.get("max_input_chars_per_word") or 0) > MAX_WORD_CHARACTERS:
        return f"reads words of {word:,} characters (at most {MAX_WORD_CHARACTERS:,} are allowed)"
    return None


def _written(step: Any, *, num_bytes: int = 4) -> float:
    """Return the most characters that a step writes for one; ByteLevel writes ``num_bytes``."""
    if not isinstance(step, dict):
        return 1
    kind = step.get("type")
    if kind == "Sequence":
        steps = next((value for value in step.values() if isinstance(value, list)), [])
        return prod((_written(one, num_bytes=num_bytes) for one in steps), start=1.0)
    if kind == "Replace":
        pattern, content = step.get("pattern") or {}, len(step.get("content") or "")
        literal = len(pattern.get("String") or "")
        if pattern.get("Regex") in _SHORTENING and content <= 1:
            return 1
        # A regular expression may match an empty text anywhere.
        return max(1.0, content / literal) if literal else 1 + content
    if kind == "Prepend":
        return 1 + len(step.get("prepend") or "")
    if kind == "Precompiled":
        return _longest_replacement(str(step.get("precompiled_charsmap") or ""))
    if kind == "ByteLevel":
        return num_bytes
    return _FIXED.get(str(kind), 2)


def _longest_replacement(charsmap: str) -> int:
    """Return the length of the longest text in SentencePiece's table of replacements.

    The table is the size of a trie in bytes, the trie, and texts that end in NUL.
    """
    try:
        table = base64.b64decode(charsmap)
    except binascii.Error:
        return 1  # the library refuses such a table
    texts = table[4 + int.from_bytes(table[:4], "little") :].split(b"\0")
    return max(1, *(len(text.decode(errors="replace")) for text in texts))
