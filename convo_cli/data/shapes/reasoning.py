r"""The assistant's reasoning: kept in the text of its turn or dropped, as `data.reasoning` says.

Reasoning is in a key of the turn (``reasoning_content``, ``thinking``, ``reasoning``) or between
tags in its text. Kept reasoning has one form: ``<think>\n…\n</think>\n\n`` before the answer. A
text that already has the tags is unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from convo_cli.data.problems import kind_of, member
from convo_cli.data.shapes.known_keys import is_reasoning_key
from convo_cli.data.shapes.masks import Refuse
from convo_cli.wording import quoted

if TYPE_CHECKING:
    from convo_cli.config.schema import Reasoning

_TAG = re.compile(r"<(/?)think\s*>", re.IGNORECASE | re.ASCII)
_SPACE = " \t\n\r\f\v"


def has_tag(text: str) -> bool:
    """Return whether the text has a tag that begins or ends reasoning."""
    return "<" in text and _TAG.search(text) is not None


def reasoning_keys(value: Mapping[str, Any]) -> list[str]:
    """Return the keys of the object that hold reasoning."""
    return [key for key, item in value.items() if is_reasoning_key(key) and _is_reasoning(item)]


def with_reasoning(
    text: str,
    path: str,
    beside: Mapping[str, Any],
    at: str,
    choice: Reasoning | None,
    refuse: Refuse,
) -> tuple[str, bool]:
    """Return the text to train on, and whether there was reasoning.

    ``path`` is the path of the text; ``beside`` is the object at path ``at`` that may hold the
    reasoning.
    """
    keys = reasoning_keys(beside)
    is_tagged = has_tag(text)
    if is_tagged and (fault := _tag_fault(text)):
        refuse("reasoning-tags", path, f"the text has {fault}")
    elif not keys and not is_tagged:
        return text, False
    elif choice is None:
        where = member(at, keys[0]) if keys else path
        what = f"the key {quoted(keys[0])}" if keys else "the text"
        refuse("reasoning", where, f"{what} contains reasoning")
    elif choice == "drop":
        return _without_blocks(text) if is_tagged else text, True
    elif keys and text.strip():
        return _joined(text, path, {key: beside[key] for key in keys}, at, refuse), True
    return text, True


def _joined(text: str, path: str, thoughts: Mapping[str, Any], at: str, refuse: Refuse) -> str:
    """Return the text with the reasoning of the keys before it, unless it already has it."""
    known = {block.strip() for block in _parts(text)[1::2]}
    for key, thought in thoughts.items():
        where = member(at, key)
        if not isinstance(thought, str):
            message = f"the reasoning is {kind_of(thought)}, not a string"
            refuse("text-not-string", where, message)
            return text
        inner = _inside_tags(thought)
        if has_tag(inner):
            message = "the reasoning contains a <think> or </think> tag"
            refuse("reasoning-tags", where, message)
            return text
        known.add(inner.strip())
    if len(known) > 1:
        where = member(at, next(iter(thoughts)))
        refuse("reasoning-twice", where, "the turn has two different texts of reasoning")
    return text if has_tag(text) else f"<think>\n{known.pop()}\n</think>\n\n{text.strip()}"


def _inside_tags(thought: str) -> str:
    """Return the reasoning without the tags, if one pair encloses all of it."""
    parts = [] if _tag_fault(thought) else _parts(thought.strip())
    return parts[1] if len(parts) == 3 and not parts[0] + parts[2] else thought


def _is_reasoning(value: Any) -> bool:
    """Return whether the value of a key is reasoning; true, false and numbers are settings."""
    if isinstance(value, str):
        return bool(value.strip())
    return isinstance(value, (list, dict)) and bool(value)


def _parts(text: str) -> list[str]:
    """Split a text at its tags; without a `_tag_fault`, every second part is reasoning."""
    ends = [bound for tag in _TAG.finditer(text) for bound in tag.span()]
    return [
        text[start:end]
        for start, end in zip([0, *ends[1::2]], [*ends[0::2], len(text)], strict=True)
    ]


def _without_blocks(text: str) -> str:
    """Remove reasoning; of the white space before and after a block, the longer one is kept."""
    first, *between, last = _parts(text)[0::2]
    pieces = [first.rstrip(_SPACE)]
    space = first[len(pieces[0]) :]
    for part in (*(part for part in between if part.strip(_SPACE)), last):
        said = part.lstrip(_SPACE)
        pieces += (max(space, part[: len(part) - len(said)], key=len), said.rstrip(_SPACE))
        space = said[len(pieces[-1]) :]
    return "".join(pieces) + space


def _tag_fault(text: str) -> str | None:
    """Describe what is wrong with the order of the tags; None if nothing is."""
    is_open = False
    for tag in _TAG.finditer(text):
        if is_open != bool(tag[1]):
            nested, alone = "a <think> tag inside another", "a </think> tag without a <think> tag"
            return nested if is_open else alone
        is_open = not is_open
    return "a <think> tag that is never closed" if is_open else None
