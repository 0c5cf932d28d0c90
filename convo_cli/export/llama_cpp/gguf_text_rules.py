"""What a tokenizer does to a text before its vocabulary is used, as far as llama.cpp does the same.

llama.cpp has its own code for the regular expressions of known tokenizers, by their names. A
tokenizer gets a name only if its rules are equal. Of the known rules, those of gpt-4o and tekken
are missing, because llama.cpp cuts words with combining marks differently.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from convo_cli.export.format import OtherReading
from convo_cli.export.tokenizer_kinds import tokenizer_json_kind

SPACE_MARK = "▁"
_BYTE_ORDER_MARK = "\ufeff"
_SAME_SCORE = 1e-5
"""Relative difference of two scores that llama.cpp's sums in fp32 do not tell apart."""
_NFC = {"type": "NFC"}
_LINES = r"[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORD = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+"
_MARKED = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+"
_OTHER = r"| ?[^\s\p{L}\p{N}]+" + _LINES
_DEEPSEEK = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+" + _LINES
).replace(r"\"", '"')
_GPT2 = ("ByteLevel", True)
_BYTES = ("ByteLevel", False)
_Step = tuple[str, Any]
_RULES: Mapping[tuple[tuple[_Step, ...], bool], str] = {
    ((_GPT2,), False): "gpt-2",
    ((("Digits", True), _GPT2), False): "smollm",
    ((("Split", _WORD + r"|\p{N}{1,3}" + _OTHER), _BYTES), True): "llama-bpe",
    ((("Split", _WORD + r"|\p{N}{1,3}" + _OTHER), _BYTES), False): "dbrx",
    ((("Split", _WORD + r"|\p{N}" + _OTHER), _BYTES), False): "qwen2",
    (
        (("Split", _MARKED + r"|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+" + _LINES), _BYTES),
        False,
    ): "qwen35",
    (
        (
            ("Split", r"\p{N}{1,3}"),
            ("Split", "[一-龥぀-ゟ゠-ヿ]+"),
            ("Split", _DEEPSEEK),
            _BYTES,
        ),
        False,
    ): "deepseek-v3",
}
"""Names by the steps of the pre-tokenizer, and by whether a word of the vocabulary needs no merges.
"""


def tokenizer_objection(spec: Mapping[str, Any]) -> str | None:
    """Return why llama.cpp cannot read a tokenizer.json of a supported kind, or None."""
    model, kind = spec["model"], tokenizer_json_kind(dict(spec))
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            return f"llama.cpp has no {name}"
    if kind == "byte-level bpe":
        if spec.get("normalizer") not in (None, _NFC):
            return "llama.cpp does not change texts by its normalizer"
        if pre_tokenizer_of(spec) is None:
            return "llama.cpp does not know the rules by which it cuts words (pre_tokenizer)"
        return None
    adds_space = adds_space_of(spec)
    if adds_space is None:
        return "llama.cpp does not change texts by its normalizer or pre_tokenizer"
    if kind == "unigram" and adds_space:
        return "llama.cpp puts no space before a text for a unigram model with bytes"
    if kind == "unigram" and not model.get("byte_fallback"):
        return "it has no pieces for the bytes of unknown characters"
    if model.get("ignore_merges"):
        return "llama.cpp finds no words without their merges"
    return None


def inexact(spec: Mapping[str, Any]) -> str | None:
    """Return which texts llama.cpp reads differently than a tokenizer that it can read, or None."""
    if tokenizer_json_kind(dict(spec)) == "unigram":
        return f"texts with {SPACE_MARK}, U+FEFF first, or two equally likely cuts"
    if puts_first_space(spec):
        return "a text that no special token precedes, as llama.cpp puts no space before it"
    if spec.get("normalizer") == _NFC:
        return "texts that are not in the normal form NFC"
    return None


def explains(spec: Mapping[str, Any], reading: OtherReading) -> bool:
    """Return whether a text is one of those that `inexact` names."""
    texts = reading.texts
    if tokenizer_json_kind(dict(spec)) == "unigram":
        is_marked = any(SPACE_MARK in text or text.startswith(_BYTE_ORDER_MARK) for text in texts)
        return is_marked or _is_as_likely(spec, reading.ids, reading.wanted)
    if puts_first_space(spec):
        return not reading.is_prompt  # a special token precedes each text of a prompt
    if spec.get("normalizer") == _NFC:
        return not all(unicodedata.is_normalized("NFC", text) for text in texts)
    return False


def _is_as_likely(spec: Mapping[str, Any], ids: Sequence[int], wanted: Sequence[int]) -> bool:
    """Return whether a unigram model has two cuts of one text with the same score."""
    pieces = {index: tuple(piece) for index, piece in enumerate(spec["model"]["vocab"])}
    pieces |= {one["id"]: (one["content"], 0.0) for one in spec.get("added_tokens") or ()}
    if any(index not in pieces for index in (*ids, *wanted)):
        return False
    cuts = [[pieces[index] for index in cut] for cut in (ids, wanted)]
    (text, score), (other, wanted_score) = (
        ("".join(piece for piece, _ in cut), sum(score for _, score in cut)) for cut in cuts
    )
    return text == other and abs(score - wanted_score) < _SAME_SCORE * max(1.0, abs(wanted_score))


def pre_tokenizer_of(spec: Mapping[str, Any]) -> str | None:
    """Return llama.cpp's name of the rules of a tokenizer.json, or None if it has none."""
    stated = spec.get("pre_tokenizer") or {}
    parts = stated.get("pretokenizers", []) if stated.get("type") == "Sequence" else [stated]
    steps = tuple(_step(part) for part in parts)
    return _RULES.get((steps, bool(spec["model"].get("ignore_merges"))))


def adds_space_of(spec: Mapping[str, Any]) -> bool | None:
    """Return whether a space is put before a text; None if texts are changed in other ways."""
    stated = spec.get("normalizer")
    steps = [] if stated is None else stated.get("normalizers", [stated])
    adds_space = False
    for step in steps:
        if step.get("type") == "Prepend" and step.get("prepend") == SPACE_MARK:
            adds_space = True
        elif step.get("type") != "Replace" or (
            step.get("pattern"),
            step.get("content"),
        ) != ({"String": " "}, SPACE_MARK):
            return None
    splitter = spec.get("pre_tokenizer")
    if splitter is None:
        return adds_space if steps else None
    if splitter.get("type") == "Split" and splitter.get("pattern") == {"String": " "} and steps:
        return adds_space  # there are no spaces any more
    if (
        splitter.get("type") != "Metaspace"
        or splitter.get("replacement") != SPACE_MARK
        or splitter.get("split")
        or splitter.get("prepend_scheme") not in ("never", "first")
    ):
        return None
    return adds_space


def puts_first_space(spec: Mapping[str, Any]) -> bool:
    """Return whether a space is put before the first text of a dialogue, and before no other.

    llama.cpp puts one before all or none. So a dialogue has to begin with a special token.
    """
    return (spec.get("pre_tokenizer") or {}).get("prepend_scheme") == "first"


def _step(part: Mapping[str, Any]) -> _Step:
    kind = str(part.get("type"))
    if kind == "ByteLevel" and not part.get("add_prefix_space"):
        return kind, part.get("use_regex", True)
    if kind == "Digits":
        return kind, part.get("individual_digits")
    if kind == "Split" and part.get("behavior") == "Isolated" and not part.get("invert"):
        return kind, (part.get("pattern") or {}).get("Regex")
    return kind, "other settings"
