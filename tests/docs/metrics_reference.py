"""Tables of the metrics in docs/evaluation.md, from `METRICS`.

`python -m tests.docs.metrics_reference docs/evaluation.md` writes them into the page.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from convo_cli.metrics.metric_table import METRICS

_MEANINGS = "| metric | meaning | range | better |"
_SIGNATURES = "| metric | signature |"


def with_tables(page: str) -> str:
    """Return the page with the tables of the present metrics."""
    meanings, signatures = [f"{_MEANINGS}\n|---|---|---|---|"], [f"{_SIGNATURES}\n|---|---|"]
    for name, metric in METRICS.items():
        values = "0 and up" if metric.highest is None else f"0 to {metric.highest:g}"
        signature = metric.signature.replace("|", r"\|")
        meanings.append(f"| `{name}` | {metric.meaning} | {values} | {metric.direction} |")
        signatures.append(f"| `{name}` | {signature} |")
    for head, rows in ((_MEANINGS, meanings), (_SIGNATURES, signatures)):
        found = re.search(rf"{re.escape(head)}\n(?:\|.*\n)*", page)
        assert found is not None, head
        page = page[: found.start()] + "\n".join(rows) + "\n" + page[found.end() :]
    return page


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(with_tables(file.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
