"""JSON inside a string of a line, as tables hold it: the list of turns, or the whole dialogue."""

from __future__ import annotations

import re
from typing import Any

from convo_cli.data.problems import Problem, ProblemSink
from convo_cli.data.strict_json.decoder import decode

_SPACE = " \t\r\n"
# A text may also begin with a tag in brackets, such as [INST].
_BEGINNING = re.compile(r"[ \t\r\n]*(?:(\[)[ \t\r\n]*[\[{\"\]]|(\{)[ \t\r\n]*[\"}])")


def begins_as_json(text: str, opening: str = "[") -> bool:
    """Return whether a text begins as a JSON list, or another value with this bracket."""
    match = _BEGINNING.match(text)
    return match is not None and (match[1] or match[2]) in opening


def embedded_json(text: Any, opening: str, path: str, found: ProblemSink) -> Any:
    """Return the value of a JSON text, checked as strictly as a line.

    Anything but a string that begins with one of the brackets ``opening`` is returned unchanged.
    After a fault, which goes to ``found`` with the path of the text, the value is `msgspec.UNSET`.
    """
    if not isinstance(text, str) or not begins_as_json(text, opening):
        return text

    def found_inside(problem: Problem) -> None:
        where = f"column {problem.column} of the JSON text"
        found(Problem(problem.code, f"{problem.message} ({where})", path))

    return decode(text.strip(_SPACE).encode("utf-8", "surrogatepass"), found_inside)
