"""Unseen characters: a terminal does not show them, or shows the text around them differently.

They are control characters beyond ASCII, line separators, the embeddings and isolates of the
bidirectional algorithm, characters without width, and tag characters. Joiners, variation selectors
and the marks of right-to-left scripts are not included, because emoji and the scripts of Persian
and of India need them.
"""

from __future__ import annotations

import json
import re

UNSEEN = (
    "\x7f-\x9f\u00ad\u115f\u1160\u200b\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb"
    "\U0001d173-\U0001d17a\U000e0000-\U000e007f"
)
"""All of them, as a character class of a regular expression, without its brackets."""

_UNSEEN = re.compile(f"[{UNSEEN}]")


def has_unseen(text: str) -> bool:
    """Return whether the text contains an unseen character."""
    return _UNSEEN.search(text) is not None


def escape_unseen(text: str) -> str:
    """Replace unseen characters by JSON escapes; JSON keeps its value and is safe to show."""
    return _UNSEEN.sub(lambda match: json.dumps(match.group())[1:-1], text)
