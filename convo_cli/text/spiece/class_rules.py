"""Tokenizer classes of transformers that read a SentencePiece model, and what each adds to it.

Most encode a text as SentencePiece does. Some change the text first, and those that came from
fairseq shift the ids. The source of all rules is the slow form of the class in transformers 4.57.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokenizers import Regex, normalizers

from convo_cli.text.tokenizers.expansion import WHITE_SPACE

Settings = Mapping[str, Any]
"""tokenizer_config.json of the folder."""

_FAIRSEQ = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
_QUOTES = (("``", '"'), ("''", '"'))
_NUMBER_AND_COMMA = re.compile(r".*\d,", re.DOTALL)
_CONTROLS = "[\x00-\x08\x0b-\x1f\x7f-\xa0\xad\u200b]"
_SPACES = "[\u2002\u2003\u2005\u2008-\u200a\u202f\u3000\ufffc]"
_CONTROL = re.compile(_CONTROLS)
_SPACE = re.compile(_SPACES)


def _no_steps(settings: Settings) -> list[normalizers.Normalizer]:
    return []


def _unchanged(text: str, settings: Settings) -> str:
    return text


@dataclass(frozen=True)
class ClassRules:
    """What a tokenizer class adds to SentencePiece."""

    offset: int = 0
    """Added to the index of a piece of text."""
    fixed: Mapping[str, int] = field(default_factory=dict)
    """Ids of pieces that stand for no text, if they are shifted differently."""
    steps: Callable[[Settings], list[normalizers.Normalizer]] = _no_steps
    """The class's own changes to a text, as normalizers."""
    prepare: Callable[[str, Settings], str] = _unchanged
    """The same changes in Python, by which the conversion is checked."""
    cuts_numbers: bool = False
    """A comma after a digit is a token of its own."""


def _albert(defaults_to_lower: bool) -> ClassRules:
    def flags(settings: Settings) -> tuple[bool, bool, bool]:
        return (
            bool(settings.get("remove_space", True)),
            not settings.get("keep_accents", False),
            bool(settings.get("do_lower_case", defaults_to_lower)),
        )

    def steps(settings: Settings) -> list[normalizers.Normalizer]:
        joins, strips_accents, lowers = flags(settings)
        written: list[normalizers.Normalizer] = []
        if joins:
            written += [normalizers.Replace(Regex(WHITE_SPACE), " "), normalizers.Strip()]
        written += [normalizers.Replace(old, new) for old, new in _QUOTES]
        if strips_accents:
            written += [normalizers.NFKD(), normalizers.StripAccents(), normalizers.NFC()]
        return [*written, normalizers.Lowercase()] if lowers else written

    def prepare(text: str, settings: Settings) -> str:
        joins, strips_accents, lowers = flags(settings)
        if joins:
            text = " ".join(text.split())
        for old, new in _QUOTES:
            text = text.replace(old, new)
        if strips_accents:
            decomposed = unicodedata.normalize("NFKD", text)
            text = "".join(one for one in decomposed if not unicodedata.combining(one))
        return text.lower() if lowers else text

    return ClassRules(steps=steps, prepare=prepare, cuts_numbers=True)


def _sw3_steps(settings: Settings) -> list[normalizers.Normalizer]:
    return [
        normalizers.Replace(Regex(_CONTROLS), ""),
        normalizers.Replace(Regex(_SPACES), " "),
        normalizers.NFC(),
    ]


def _sw3_prepare(text: str, settings: Settings) -> str:
    return unicodedata.normalize("NFC", _SPACE.sub(" ", _CONTROL.sub("", text)))


PLAIN = ClassRules()
_SHIFTED = ClassRules(offset=1, fixed=_FAIRSEQ)
_CAMEMBERT = {"<pad>": 1, "<unk>": 3, "<s>": 5, "</s>": 6}
RULES: Mapping[str, ClassRules] = {
    **dict.fromkeys(
        (
            "BarthezTokenizer", "BertGenerationTokenizer", "BigBirdTokenizer",
            "CodeLlamaTokenizer", "GemmaTokenizer", "LlamaTokenizer", "ReformerTokenizer",
            "RemBertTokenizer", "T5Tokenizer",
            # transformers' names for a tokenizer without a class of its own
            "PreTrainedTokenizer", "PreTrainedTokenizerFast", "PythonBackend",
            "SentencePieceBackend", "TokenizersBackend",
        ),
        PLAIN,
    ),
    **dict.fromkeys(
        ("MBartTokenizer", "NllbTokenizer", "XGLMTokenizer", "XLMRobertaTokenizer"), _SHIFTED
    ),
    "AlbertTokenizer": _albert(defaults_to_lower=True),
    "CamembertTokenizer": ClassRules(offset=4, fixed=_CAMEMBERT),
    "GPTSw3Tokenizer": ClassRules(steps=_sw3_steps, prepare=_sw3_prepare),
    "XLNetTokenizer": _albert(defaults_to_lower=False),
}  # fmt: skip
"""Rules by the name of the class, without "Fast"."""


def is_number_and_comma(piece: str) -> bool:
    """Return whether a piece ends in a comma after a digit."""
    return bool(_NUMBER_AND_COMMA.fullmatch(piece))


def cut_numbers(pieces: Sequence[str], encode: Callable[[str], list[str]]) -> list[str]:
    """Cut the comma from every piece that ends in one after a digit, and encode the digits."""
    found = list[str]()
    for piece in pieces:
        if not is_number_and_comma(piece):
            found.append(piece)
            continue
        rest = encode(piece[:-1].replace("▁", ""))
        if not piece.startswith("▁") and rest[0].startswith("▁"):
            rest = rest[1:] if len(rest[0]) == 1 else [rest[0][1:], *rest[1:]]
        found += [*rest, ","]
    return found
