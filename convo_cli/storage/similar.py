"""Suggestions for mistyped paths."""

from __future__ import annotations

import itertools
from pathlib import Path

_MAX_NAMES = 1000
"""Entries of a folder that are compared, because a folder may hold millions of files."""
_CUTOFF = 0.65
"""Least similarity of a suggestion: f and ff are similar enough, nope and zip are not."""


def similar_path(path: Path | str) -> Path | None:
    """Return an existing path like the missing one, in the nearest folder that exists.

    Extensions are not compared, so that two names are not similar because both end in .jsonl.
    """
    import difflib  # here, because it is needed only after a mistake

    path = Path(path)
    try:
        if not path.parent.is_dir():
            above = None if path.parent.exists() else similar_path(path.parent)
            if above is None or not above.is_dir():
                return None
            below = above / path.name
            return below if below.exists() else above
        entries = sorted(itertools.islice(path.parent.iterdir(), _MAX_NAMES))
        # A link to a missing file is not a path that exists.
        visible = [entry for entry in entries if entry.name[0] != "." and entry.exists()]
    except (OSError, ValueError):
        return None
    stems: dict[str, list[Path]] = {}
    for entry in visible:
        stems.setdefault(_stem(entry), []).append(entry)
    close = difflib.get_close_matches(_stem(path), stems, n=1, cutoff=_CUTOFF)
    if not close:
        return None
    found = stems[close[0]]
    return next((entry for entry in found if entry.suffix == path.suffix), found[0])


def _stem(path: Path) -> str:
    """Return the name in lower case without its extensions: train of Train.jsonl.gz."""
    return path.name.lower().partition(".")[0] or path.name
