"""Texts in parts: ``"content": [{"type": "text", "text": "Hello"}, …]``, and Gemini's ``parts``.

The texts are joined by newlines, as inference servers join them for a template that reads strings.
A part may also be a string, or an object without a type. A part that is no text is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from convo_cli.data.problems import Problem, kind_of, member
from convo_cli.data.shapes.known_keys import is_reasoning_key
from convo_cli.data.shapes.unread import UnreadItem
from convo_cli.wording import quoted

_TEXT_TYPES = ("text", "input_text", "output_text")


def texts_of_parts(parts: list[Any], path: str) -> Iterator[str | UnreadItem | Problem]:
    """Yield the text of each part, every key of a part that is not read, and the problems."""
    for index, part in enumerate(parts):
        at = f"{path}[{index}]"
        if isinstance(part, str):
            yield part
        elif not isinstance(part, dict):
            message = f"the part of the text is {kind_of(part)}, not a string or an object"
            yield Problem("text-not-string", message, at)
        elif (what := _not_a_text(part)) is not None:
            yield Problem("part-not-text", f"the part of the text {what}", at)
        elif not isinstance(part["text"], str):
            message = f"the text is {kind_of(part['text'])}, not a string"
            yield Problem("text-not-string", message, f"{at}.text")
        else:
            yield part["text"]
            for key, value in part.items():
                if key not in ("type", "text"):
                    yield UnreadItem(member(at, key), key, value)


def _not_a_text(part: dict[str, Any]) -> str | None:
    """Describe the kind of a part that is no text; None for a text."""
    thoughts = [key for key, value in part.items() if is_reasoning_key(key) and value]
    if thoughts:
        return f"holds reasoning under the key {quoted(thoughts[0])}"
    kind = part.get("type", "text")
    if kind not in _TEXT_TYPES:
        return f"has the type {quoted(kind)}" if isinstance(kind, str) else "has no type"
    if "text" in part:
        return None
    keys = [key for key in part if key != "type"]
    return f"has the key {quoted(keys[0])} instead of a text" if keys else "has no text"
