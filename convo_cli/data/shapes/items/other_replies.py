"""Other good replies to a turn: texts under ``references`` on an assistant turn.

A line with a single reply may also hold them beside it. Evaluations compare a model's reply with
all of them; no model is trained on them.
"""

from __future__ import annotations

from typing import Any

KEY = "references"


def holds_replies(value: Any) -> bool:
    """Return whether the value of the key is meant as replies, also if it is not valid.

    Null means none. A list without a text has another meaning: Doc2Dial lists the documents that a
    turn is based on.
    """
    if isinstance(value, list):
        return any(isinstance(item, str) for item in value)
    return value is not None
