"""Characters that a terminal does not show, or that change how it shows the text around them.

Control characters beyond ASCII, line separators, embeddings and isolates of the bidirectional
algorithm, and characters without width. Joiners, variation selectors and the marks of right-to-left
scripts are not among them, because emoji, Persian and Indian scripts need them. Tag characters are,
although some flag emoji use them.
"""

from __future__ import annotations

import json
import re

UNSEEN = (
    "\x7f-\x9f\u00ad\u115f\u1160\u200b\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb"
    "\U0001d173-\U0001d17a\U000e0000-\U000e007f"
)
"""A character class for regular expressions, without its brackets."""
_UNSEEN = re.compile(f"[{UNSEEN}]")


def has_unseen(text: str) -> bool:
    """Return whether the text holds such a character."""
    return _UNSEEN.search(text) is not None


def escape_unseen(text: str) -> str:
    """Replace such characters by JSON escapes; JSON text keeps its value and is safe to show."""
    return _UNSEEN.sub(lambda match: json.dumps(match.group())[1:-1], text)
