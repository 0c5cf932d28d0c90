"""Counts of personal data in texts: e-mail addresses, phone numbers, and postal addresses."""

from __future__ import annotations

import re
from collections import Counter

_MAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{2,63}){1,4}")
_PHONE = re.compile(r"(?<![\w.,/-])(?:\+|00)?[0-9(][0-9 ()./-]{5,22}[0-9](?![\w-])")
_DATE = re.compile(r"[0-9]{1,4}[./-][0-9]{1,2}[./-][0-9]{1,4}")
_STREET = re.compile(
    r"\b(?:[0-9]{1,5} [A-Z]\w{2,20} (?:Street|St|Road|Rd|Avenue|Ave|Lane|Ln|Drive|Boulevard|Blvd)\b"
    r"|[A-ZÄÖÜ]\w{1,20}(?:straße|strasse|str\.|gasse|weg|platz|allee) [0-9]{1,4}\b"
    r"|(?:[Cc]alle|[Rr]ua|[Rr]ue|[Vv]ia|[Aa]venida) [A-Z]\w{2,20} ?,? ?[0-9]{1,4}\b"
    r"|[0-9]{1,4},? rue \w{2,20}\b)"
)
_MIN_DIGITS = 7


def count_personal(text: str, found: Counter[str]) -> None:
    """Add the personal data in a text to ``found``, by kind."""
    if "@" in text:
        found["e-mail addresses"] += len(_MAIL.findall(text))
    if not any(character.isdigit() for character in text):
        return
    for match in _PHONE.finditer(text):
        digits = sum(character.isdigit() for character in match[0])
        if digits >= _MIN_DIGITS and not _DATE.match(match[0].strip()):
            found["phone numbers"] += 1
    found["postal addresses"] += len(_STREET.findall(text))
