"""Paths of values in a line of data, as `data.columns` and the messages about data write them.

    meta.dialog    data[0].turns    $[0].text    author["full name"]

Keys are joined by dots, an item of a list is its number in brackets, from 0, and a key that holds a
dot, a bracket or a quote is a JSON string in brackets. A leading ``$`` is the line or the turn
itself.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache

PathSteps = tuple[str | int, ...]
"""Keys and indices from a value to one inside it; empty for the value itself."""

_ROOT = re.compile(r"\$(?:\.(?!\Z)|(?=\[)|\Z)")
_STEP = re.compile(r'([^.\[\]"]+)|\[([0-9]{1,9})\]|\[("(?:[^"\\]|\\.)*")\]')
_BARE = re.compile(r"[^\W\d][\w-]*")
_FORM = 'write keys joined by dots, such as meta.dialog, data[0].turns or author["full name"]'


def check_path(path: str) -> str:
    """Return the path; ValueError if it is not one."""
    steps_of(path)
    return path


@lru_cache(maxsize=64)
def steps_of(path: str) -> PathSteps:
    """Return the steps of a path; ValueError if it is not one."""
    steps: list[str | int] = []
    root = _ROOT.match(path)
    at = root.end() if root else 0
    while at < len(path) or not (steps or root):
        if path.startswith(".", at) and steps:
            at += 1
        step = _STEP.match(path, at)
        is_glued = step is not None and step[1] and steps and path[at - 1] != "."
        is_after_dot = step is not None and not step[1] and path[at - 1 : at] == "."
        if step is None or is_glued or is_after_dot:
            raise ValueError(f"not a path: {_FORM}")
        try:
            steps.append(step[1] or (int(step[2]) if step[2] else json.loads(step[3])))
        except ValueError:
            raise ValueError(f"not a path: {_FORM}") from None
        at = step.end()
    return tuple(steps)


def path_to(steps: PathSteps) -> str:
    """Return the path with these steps; `steps_of` reads it."""
    path = ""
    for step in steps:
        if isinstance(step, str) and _BARE.fullmatch(step):
            path += f".{step}" if path else step
        else:
            path = f"{path or '$'}[{json.dumps(step, ensure_ascii=False)}]"
    return path or "$"
