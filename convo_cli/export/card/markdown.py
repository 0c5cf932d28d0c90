"""Foreign text in a model card: Markdown, HTML and YAML show it as it is, on one bounded line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from convo_cli.unseen import has_unseen

_LONGEST_NAME = 80  # characters of a foreign text in the card or a notice
_MARKUP = re.compile(
    r"[#$&*<=>@\[\\\]^_`{|}~]"
    r"|^[-+]"  # a list, at the beginning of a line
    r"|(?<!\d)\.(?!\s|$)|:(?!\s)"  # a link without brackets
    r"|(?<=\d)\.(?!\d)|(?<=\d)\)"  # a numbered list, at the beginning of a line
)


def visible(text: str, limit: int = _LONGEST_NAME) -> str:
    """Return one line of bounded length, with escapes for control and invisible characters."""
    shown = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(
        letter if letter.isprintable() and not has_unseen(letter) else ascii(letter)[1:-1]
        for letter in shown
    )


def as_markdown(text: str, limit: int = _LONGEST_NAME) -> str:
    """Escape a text, so that Markdown and HTML show it as it is."""
    return _MARKUP.sub(r"\\\g<0>", visible(text, limit))


def as_code(text: str) -> str:
    """Return a text as a code span; the fence is longer than any run of backquotes in it."""
    shown = visible(text)
    if not shown:
        return "(empty)"
    fence = "`" * (max(map(len, re.findall("`+", shown)), default=0) + 1)
    is_blank = not shown.strip(" ")  # a parser strips no space from code that is only spaces
    space = " " if not is_blank and {shown[0], shown[-1]} & {"`", " "} else ""
    return f"{fence}{space}{shown}{space}{fence}"


def cell(text: str) -> str:
    """Return a text as code for a table, whose cells end at a pipe in code, too."""
    return as_markdown(text) if {"|", "\\"} & set(visible(text)) else as_code(text)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numeric: Iterable[int] = ()) -> str:
    """Return a table of Markdown; ``numeric`` columns are aligned to the right."""
    right = set(numeric)
    rule = ["---:" if index in right else "---" for index in range(len(head))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def bullets(lines: Iterable[str]) -> str:
    """Return a list of Markdown."""
    return "\n".join(f"- {line}" for line in lines)
