"""What is legal in a dialogue and seldom meant: the warnings."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from convo_cli.data.formats import DIALOGUE_KEYS, TURN_KEYS, LocatedTurn
from convo_cli.data.problems import Problem, quoted

LONG_UTTERANCE_BYTES = 100_000
LONG_DIALOGUE_TURNS = 1_000

_NULL_TEXTS = frozenset({"NULL", "null", "None", "nan", "NaN", "undefined", "[object Object]"})

# Joiners (U+200C, U+200D) belong into emoji and into Persian and Indic words, so they are odd only after ASCII. The
# mojibake is that of UTF-8 read as Windows-1252: two bytes of a Latin letter, the start of a curly quote or a dash, a
# byte order mark, the start of an emoji, or two characters in a row of three bytes each (Hangul, Kana, Han).
_HIGH = "\u00a0-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
_ODD = re.compile(
    "(?P<zero_width>[\u200b\u2060\ufeff]|(?<=[\\x00-\\x7f])[\u200c\u200d])"
    "|(?P<space>\u2581)"
    "|(?P<control>[\x7f-\x9f])"
    f"|(?P<mojibake>[ÂÃ][\u00a0-\u00bf]|â€|ï»¿|ðŸ|(?:[à-ï][{_HIGH}]{{2}}){{2}})"
)


def suspect_turns(turns: Sequence[LocatedTurn]) -> Iterator[Problem]:
    """Yield what looks odd about a dialogue: first each text, then the whole."""
    for path, turn in turns:
        for code, message in _suspect_text(turn.text):
            yield Problem(code, message, path)
    if sum(turn.role != "system" for _, turn in turns) < 2:
        yield Problem("one-turn", "the dialogue has no reply")
    if len(turns) > LONG_DIALOGUE_TURNS:
        yield Problem("long-dialogue", f"the dialogue has {len(turns):,} turns")


@lru_cache(maxsize=1024)
def misspelt(key: str) -> str | None:
    """The key of a dialogue or turn that ``key`` was probably meant to be."""
    if len(key) > 20:
        return None
    matches = difflib.get_close_matches(key.lower(), DIALOGUE_KEYS | TURN_KEYS, n=1, cutoff=0.8)
    return matches[0] if matches and abs(len(matches[0]) - len(key)) <= 2 else None


def _suspect_text(text: str) -> Iterator[tuple[str, str]]:
    if text in _NULL_TEXTS:
        yield "null-text", f"the text is {quoted(text)}"
    if len(text) * 4 > LONG_UTTERANCE_BYTES and (size := len(text.encode())) > LONG_UTTERANCE_BYTES:
        yield "long-utterance", f"the text has {size // 1000:,} kB"
    if text.isascii() and "\x7f" not in text:
        return
    seen: set[str | None] = set()
    for match in _ODD.finditer(text):
        if match.lastgroup in seen:
            continue
        seen.add(match.lastgroup)
        char = f"U+{ord(match.group()[0]):04X}"
        if match.lastgroup == "zero_width":
            yield "zero-width", f"an invisible character ({char}) inside the text"
        elif match.lastgroup == "space":
            yield "sentencepiece-space", "the SentencePiece space mark (U+2581) inside the text"
        elif match.lastgroup == "control":
            yield "stray-control", f"a control character ({char}) inside the text"
        else:
            around = text[max(0, match.start() - 8) : match.end() + 8]
            yield "mojibake", f"{quoted(around)} looks like UTF-8 read as Windows-1252"
