"""Characters that a terminal does not show, or that change how it shows what stands around them.

Control characters beyond ASCII, line separators, embeddings and isolates of the bidirectional algorithm, and characters
without width. Joiners, variation selectors and the marks of right-to-left scripts are not among them: emoji, Persian
and the scripts of India are written with them. Tag characters are, though the flag of Scotland ends in them.
"""

from __future__ import annotations

import json
import re

UNSEEN = (
    "\x7f-\x9f\u00ad\u115f\u1160\u200b\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb"
    "\U0001d173-\U0001d17a\U000e0000-\U000e007f"
)
"""What stands between the brackets of a pattern."""
_UNSEEN = re.compile(f"[{UNSEEN}]")


def has_unseen(text: str) -> bool:
    """Whether the text holds such a character."""
    return _UNSEEN.search(text) is not None


def escape_unseen(text: str) -> str:
    """The text with JSON's escapes for such characters: JSON that any terminal may show, of the same value."""
    return _UNSEEN.sub(lambda match: json.dumps(match.group())[1:-1], text)
