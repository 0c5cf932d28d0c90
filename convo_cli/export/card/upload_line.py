"""The command with which a user uploads an export; convo itself uploads nothing."""

from __future__ import annotations

import re
from pathlib import Path

from convo_cli.errors import typeable

_LONGEST = 96  # characters of a repository's name
UPLOAD_NOTE = (
    "before you publish it, complete its README.md, and check that the licences of the training "
    "data, and of a base model if there is one, allow it"
)


def upload_command(out: Path) -> str:
    """Return the command as typed into a shell, with a placeholder for the user's name on the hub.

    The hub allows fewer characters in names than a disk does, so other ones become dashes.
    """
    return f"hf upload YOUR-NAME/{repository_name(out.resolve().name)} {typeable(out)}"


def repository_name(title: str) -> str:
    """Return the title as the hub allows it; ``model`` if nothing of it is left."""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", title)
    name = re.sub(r"-{2,}", "-", re.sub(r"\.{2,}", ".", name))[:_LONGEST].strip("-.")
    return re.sub(r"\.git$", "-git", name) or "model"
