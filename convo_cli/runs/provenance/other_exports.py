"""Exports of convo for other programs, which no command of convo opens."""

from __future__ import annotations

import json
from pathlib import Path

from convo_cli.errors import ModelError, typeable
from convo_cli.storage.files import read_file
from convo_cli.storage.foreign_files import MAX_CONFIG_BYTES
from convo_cli.storage.pickles import require_no_pickle
from convo_cli.wording import quoted

RECEIPT_FILE = "receipt.json"
"""What an export was compared on, with the name of its format."""
_OPENED = {"huggingface", "adapter"}
_PICKLED = {"legacy"}  # `storage.pickles` refuses it, with a hint of its own


def export_format(folder: Path) -> str | None:
    """Return the format that the receipt in a folder states; None without a receipt."""
    try:
        values = json.loads(read_file(folder / RECEIPT_FILE, MAX_CONFIG_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    stated = values.get("export") if isinstance(values, dict) else None
    return stated if isinstance(stated, str) else None


def require_not_for_others(path: Path) -> None:
    """Raise ModelError for an export for another program, and for weights in a pickle."""
    require_no_other_export(path)
    require_no_pickle(path)


def require_no_other_export(path: Path) -> None:
    """Raise ModelError if a folder is an export of convo for another program."""
    stated = export_format(path)
    if stated is None or stated in _OPENED | _PICKLED:
        return
    name = stated if stated.isidentifier() and len(stated) <= 40 else quoted(stated)
    raise ModelError(
        f"{path}: an export of --format {name}, which is for another program than convo",
        hint="give the run that it came from, or an export without --format (`convo export "
        f"{typeable(path)} --verify` compares it with its receipt)",
    )
