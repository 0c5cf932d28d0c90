"""docs/problems.md, made from the problem codes of the validator.

`python -m tests.docs.problem_reference docs/problems.md` writes it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from convo_cli.data.conversions.commands import as_hint
from convo_cli.data.problem_kinds import KINDS

_MARKUP, _ESCAPED = re.compile(r"([<|_*])"), r"\\\1"
_INTRODUCTION = """# Problem codes

Problems that `convo validate-data`, `train`, `resume` and `evaluate` find in data, generated from
`convo_cli/data/problem_kinds.py` by `make docs`. An **error** is refused: the dialogue cannot be
trained on as it is. A **warning** is reported, and the dialogue is trained on. `--json` lists the
code of each problem ([json.md](json.md)); `--fix` repairs what needs no guess
([data.md](data.md#repair)). Where FILE stands here, a message has the name of the file, and for
`other-format` the command that converts it."""


def problems_page() -> str:
    """Return docs/problems.md."""
    parts = [_INTRODUCTION]
    for severity, title in (("error", "Errors"), ("warning", "Warnings")):
        kinds = [
            (code, as_hint(kind.hint, ""))
            for code, kind in KINDS.items()
            if kind.severity == severity
        ]
        rows = [f"| `{code}` | {_MARKUP.sub(_ESCAPED, hint)} |" for code, hint in kinds]
        parts += [f"## {title}", "\n".join(("| code | what to do |", "|---|---|", *rows))]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(problems_page(), encoding="utf-8", newline="\n")
