"""docs/shapes.md, made from the public shapes that the tests try.

`python -m tests.docs.shapes_reference docs/shapes.md` writes it.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

from tests.public_shapes import public_shapes

_INTRODUCTION = """# Public shapes

Shapes of public corpora, programs and exports, and what convo makes of a file of each, generated
from `tests/fixtures/public_shapes.txt` by `make docs`. A test tries every row.

- **read**: the file is read as it is.
- **converted**: `convo validate-data FILE` prints a command, and its output is read.
- **mapped**: `convo validate-data FILE` prints the settings that read the file. They are a guess by
  keys, names and the order of turns, so check them.
- **refused**: the message says what the file is, or which choice it needs."""
_MARKUP = re.compile(r"([<|_*])")
_MAX_CHARACTERS = 110


def shapes_page() -> str:
    """Return docs/shapes.md."""
    shapes = public_shapes()
    counts = Counter(shape.outcome for shape in shapes)
    summary = ", ".join(
        f"{count} {outcome.replace(', ', ' and ')}" for outcome, count in counts.most_common()
    )
    rows = ["| shape | begins with | outcome |", "|---|---|---|"]
    for shape in shapes:
        begin = " ".join(shape.text.split())[:_MAX_CHARACTERS].replace("`", "'")
        begin = begin.replace("<", "‹").replace("|", r"\|")
        rows.append(f"| {_MARKUP.sub(_ESCAPED, shape.name)} | `{begin}` | {shape.outcome} |")
    return "\n\n".join((_INTRODUCTION, f"{len(shapes)} shapes: {summary}.", "\n".join(rows))) + "\n"


_ESCAPED = r"\\\1"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(shapes_page(), encoding="utf-8", newline="\n")
