"""Patterns of suspicious spots in texts, which can search many texts at once.

`suspicions` reports what they find, and `repair` removes some of it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from html.entities import html5

from convo_cli.data.dialogue import SEPARATOR
from convo_cli.wording import quoted

_MISSING = frozenset(
    {"NULL", "null", "None", "nan", "NaN", "NaT", "<NA>", "undefined", "(null)", "[object Object]"}
    | {"[deleted]", "[removed]", "#N/A", "#NAME?", "#REF!", "#VALUE!", "#DIV/0!"}
)
_ACTIONS = frozenset({"Submit-Deal", "Accept-Deal", "Reject-Deal", "Walk-Away"})
SUSPICIOUS_TEXTS = _MISSING | _ACTIONS
"""Texts that are suspicious if they are a whole turn."""

_SPEAKERS = (
    "user",
    "human",
    "assistant",
    "chatbot",
    "bot",
    "customer",
    "agent",
    "speaker",
    "person",
)
"""Names with which suspicious texts begin, in lower case."""

_FORMS = [form(name) for name in _SPEAKERS for form in (str.lower, str.capitalize, str.upper)]
_BLOCK_TAG = "(?:div|p|ul|ol|h[1-6]|pre|table|blockquote)"
# The groups of every pattern are named after the codes.
_SUSPICIOUS_BEGINNING = re.compile(
    # A text in which more lines begin with a name and a colon is a form or a scene: not suspicious.
    rf"\0(?:(?P<speaker_prefix>(?:[AB]::|(?:{'|'.join(_FORMS)})(?: ?[0-9A-Z])? ?:(?=\s))"
    r"(?![^\0]*\n[ \t]*[A-Za-z][A-Za-z0-9 ]{0,20}:))"
    r"|(?P<encoded_value>[\[\s]*\{\s*[\"'](?:role|from|speaker)[\"']\s*:\s*[\"'](?i:user|human|assistant|gpt|bot|system)"
    r"|\{\s*[\"'](?:messages|conversations|turns)[\"']\s*:\s*\[|[\[\s]*\{\s*[\"']type[\"']\s*:\s*[\"']text[\"']"
    r"|array\(\[|b(?P<quote>[\"'])[^\0]*(?P=quote)(?=\0))"
    # A text that is markup from its first to its last character; code in a text does not count.
    rf"|(?P<html_markup><{_BLOCK_TAG}(?: [^<>\0]{{0,200}})?>(?=[^\0]*</{_BLOCK_TAG}>\s*\0)))"
)
_ENTITY = re.compile(r"&(?:[A-Za-z]{2,8}[0-9]{0,2}|#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6});")
_SUSPICIOUS_MARKUP = re.compile(
    rf"(?P<html_entity>{_ENTITY.pattern})"
    r"|(?P<special_token><\|[^|<>\s]{1,40}\|>|</?s>|<(?:unk|pad|bos|eos|sep|cls|mask|(?:start|end)_of_turn)>|<</?SYS>>"
    r"|\[/?INST\]|\[(?:CLS|SEP|PAD|UNK|MASK|BOS|EOS)\]|__eo[ut]__|### (?:Instruction|Response):)"
    r"|(?P<escape_sequence>\\u[0-9A-Fa-f]{4}|\\(?:[\"']|n\\n|r\\n)|\\n(?<=[\w.!?,;)]\\n)(?=[A-Z0-9*-]))"
    r"|(?P<subword_mark>\u2581|\u0120(?<=[a-z.,!?]\u0120)|##(?<=\w ##)[a-z])"
)
# Text between backticks is a quotation, so it is not searched.
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)

# Joiners (U+200C, U+200D) belong in emoji and in Persian and Indic words, so they are suspicious
# only at the start or after ASCII; tag characters spell flags (U+1F3F4). Mojibake is UTF-8 read as
# Windows-1252 or Latin-1: a lead byte of two and its trail byte (alone only if the pair never
# occurs in real text), of three twice in a row, a curly quote, a byte order mark, an emoji; UTF-8
# read as Windows-1251 or Shift-JIS; CP949 or Windows-1251 read as Latin-1.
_TRAIL_BYTES = bytes(range(0x80, 0xC0))
_TRAIL = re.escape(_TRAIL_BYTES.decode("latin-1") + _TRAIL_BYTES.decode("cp1252", "ignore"))
_TRAIL_1251 = re.escape(
    "".join(char for char in _TRAIL_BYTES.decode("cp1251", "ignore") if char not in "…“”‘’–—")
)
_LEADS = "°-ÿРС縺繧繝"
_SUSPICIOUS_CHARACTER = re.compile(
    "(?P<mojibake>[ÂÃ][\x80-\xba\xbc-\xbfƒ„†‡ˆ‰Š‹ŒŽ™š›œžŸ]|Ã[»€‘’“”–](?=[a-z])|â€|â\x80|ï»¿|ðŸ|ð\x9f"
    f"|(?:[Â-ß][{_TRAIL}]){{2}}|(?:[à-ï][{_TRAIL}]{{2}}){{2}}|(?:[РС][{_TRAIL_1251}]){{2}}|[縺繧繝][^\0\n]{{1,2}}[縺繧繝]"
    r"|(?!(.)\2)(?:[°-È][¡-þ]){4}|(?!(.)\3)[à-ÿ]{5,})"
    "|(?P<zero_width>[\u00ad\u200b\u2060-\u2064\u3164\ufeff\uffa0]|(?<![^\\x00-\\x7f])[\u200c\u200d]+"
    "|(?<![\U0001f3f4\U000e0000-\U000e007f])[\U000e0000-\U000e007f]+)"
    "|(?P<stray_control>[\x7f-\x9f\u2028\u2029])"
    "|(?P<bidi_override>[\u202d\u202e])"
    "|(?P<replacement_character>\ufffd)"
    "|(?P<private_use>[\ue000-\uf8ff\ufdd0-\ufdef\ufffe\uffff\U000f0000-\U0010ffff])"
)

# The only places where the three patterns above can match; every branch at every character is slow.
_BEGINNINGS = re.compile(
    rf"\0(?:[A-Za-z](?:{'|'.join(sorted({form[1:] for form in _FORMS}))}|::)"
    r"|[\[{]|array|b[\"']|<[bdhoptu])"
)
_MARKUP_SIGNS = "&<\\[#_\u2581\u0120"
_MARKUP_PLACES = re.compile(f"[{re.escape(_MARKUP_SIGNS)}]")
"""Places where suspicious markup may begin."""

_SUSPICIOUS_OR_LEAD = re.compile(
    f"[{_LEADS}\x7f-\x9f\u00ad\u200b-\u200d\u2028\u2029\u202d\u202e\u2060-\u2064\u3164\ue000-\uf8ff\ufdd0-\ufdef\ufeff"
    "\uffa0\ufffd-\uffff\U000e0000-\U000e007f\U000f0000-\U0010ffff]"
)
_CHARACTER_PLACES = re.compile(
    f"{_SUSPICIOUS_OR_LEAD.pattern}(?:(?<![{_LEADS}])|(?=[^\\x00-\\x7f]))"
)
"""Places where suspicious characters may begin; before ASCII, a lead byte is an ordinary letter."""

_MESSAGES = {
    "null-text": "the text is {}",
    "label-row": "the text is {}, the name of an action",
    "speaker-prefix": "the text begins with the name of a speaker, {}",
    "encoded-value": "the text is a JSON or Python value: {}",
    "html-markup": "the text is HTML, from its first to its last tag",
    "html-entity": "the text contains the HTML entity {}",
    "special-token": "the text contains the special token {}",
    "escape-sequence": "the text contains the escape sequence {}",
    "subword-mark": "the text contains a tokenizer's mark ({})",
    "mojibake": "the text was probably decoded with the wrong encoding: {}",
    "zero-width": "the text contains an invisible character ({})",
    "stray-control": "the text contains a control character ({})",
    "bidi-override": "the text contains a character that reverses its direction ({})",
    "replacement-character": "the text contains the replacement character ({})",
    "private-use": "the text contains a character without a standard meaning ({})",
}


def may_be_suspicious(char: str) -> bool:
    """Return whether this character, which is beyond ASCII, may begin a suspicious spot."""
    return _SUSPICIOUS_OR_LEAD.match(char) is not None


def spot_places(texts: str, characters: str) -> Iterator[int]:
    """Yield a place in every text in which `suspicious_spots` finds more than `SUSPICIOUS_TEXTS`.

    ``texts`` are joined by NULs; ``characters`` holds their characters beyond ASCII for which
    `may_be_suspicious` is true.
    """
    for match in _matches_at(_BEGINNINGS, _SUSPICIOUS_BEGINNING, f"\0{texts}\0"):
        yield match.start()
    for sign in _MARKUP_SIGNS:
        place = texts.find(sign)
        while place >= 0:
            if _SUSPICIOUS_MARKUP.match(texts, place):
                yield place
            place = texts.find(sign, place + 1)
    if "\x7f" in texts or _SUSPICIOUS_OR_LEAD.search(characters):
        for match in _matches_at(_CHARACTER_PLACES, _SUSPICIOUS_CHARACTER, texts):
            yield match.start()


def suspicious_spots(text: str) -> Iterator[tuple[str, str]]:
    """Yield the code and message of the first suspicious spot of each kind."""
    if text in SUSPICIOUS_TEXTS:
        code = "null-text" if text in _MISSING else "label-row"
        yield code, _MESSAGES[code].format(quoted(text))
    first: dict[str, re.Match[str]] = {}
    for match in _matches(text):
        code = (match.lastgroup or "").replace("_", "-")
        if code != "html-entity" or _is_entity(match.group()):
            first.setdefault(code, match)
    if "mojibake" in first:
        first.pop("stray-control", None)  # most often one of its bytes
    for code, match in first.items():
        yield code, _MESSAGES[code].format(_shown(match, code))


def without_invisible_characters(text: str) -> str:
    """Remove the invisible and control characters, and the changes of direction, of a text.

    U+0080 to U+009F become their Windows-1252 characters; U+2028 and U+2029 become a newline.
    """
    return _SUSPICIOUS_CHARACTER.sub(_visible, text)


def without_entities(text: str) -> str:
    """Decode the HTML entities of a text, except those between backticks."""
    parts = re.split(f"({_CODE.pattern})", text, flags=_CODE.flags)
    parts[::2] = [_ENTITY.sub(_decoded, part) for part in parts[::2]]
    return "".join(parts)


def _decoded(match: re.Match[str]) -> str:
    return html.unescape(match.group()) if _is_entity(match.group()) else match.group()


def _visible(match: re.Match[str]) -> str:
    if match.lastgroup in ("zero_width", "bidi_override"):
        return ""
    if match.lastgroup != "stray_control":
        return match.group()
    char = match.group()
    if char in "\u2028\u2029":
        return "\n"
    return bytes([ord(char)]).decode("cp1252", "ignore").replace("\x7f", "")


def _matches(text: str) -> Iterator[re.Match[str]]:
    if (beginning := _SUSPICIOUS_BEGINNING.match(f"\0{text}\0")) is not None:
        yield beginning
    yield from _matches_at(_MARKUP_PLACES, _SUSPICIOUS_MARKUP, _CODE.sub(" ", text))
    yield from _matches_at(_CHARACTER_PLACES, _SUSPICIOUS_CHARACTER, text)


def _matches_at(
    places: re.Pattern[str], pattern: re.Pattern[str], text: str
) -> Iterator[re.Match[str]]:
    """Yield the matches of ``pattern`` that begin where ``places`` match."""
    end = 0
    for place in places.finditer(text):
        if place.start() >= end and (match := pattern.match(text, place.start())) is not None:
            end = match.end()
            yield match


def _is_entity(reference: str) -> bool:
    return reference.startswith("&#") or reference[1:] in html5


def _shown(match: re.Match[str], code: str) -> str:
    if code == "mojibake":
        return quoted(match.string[max(0, match.start() - 8) : match.end() + 8])
    found = match.group().strip(SEPARATOR)
    return f"U+{ord(found[0]):04X}" if len(found) == 1 or code == "zero-width" else quoted(found)
