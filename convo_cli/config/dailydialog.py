"""DailyDialog, the data of two presets: its files, source, licence, and conversion."""

from __future__ import annotations

from pathlib import Path

from convo_cli.errors import typeable

FOLDER = "data/dailydialog"
SOURCE = "http://yanran.li/dailydialog"
LICENCE = "CC BY-NC-SA 4.0"
_NAMES_IN_ARCHIVE = {
    "train.jsonl": "dialogues_train.txt",
    "valid.jsonl": "dialogues_validation.txt",
    "validation.jsonl": "dialogues_validation.txt",
    "test.jsonl": "dialogues_test.txt",
}
NOTE = (
    f"DailyDialog is licensed {LICENCE}: no commercial use of the dialogues or, to be safe, of a "
    f"model trained on them. It does not come with convo: get its archive from {SOURCE}, and "
    f"import its splits as train.jsonl, valid.jsonl and test.jsonl into {FOLDER}/ (`convo "
    f"validate-data {FOLDER}/train.jsonl` prints the command for a missing file)."
)


def how_to_get(path: Path) -> str | None:
    """Return the hint for a missing file of DailyDialog; None for any other path."""
    old = _NAMES_IN_ARCHIVE.get(path.name.lower())
    if old is None or path.parent.name.lower() != "dailydialog":
        return None
    return (
        f"DailyDialog does not come with convo: get its archive from {SOURCE} (licence {LICENCE}: "
        f"no commercial use); to import the archive's {old}:\n"
        f"  mkdir -p {typeable(path.parent)} && convo import {old} -o {typeable(path)}"
    )
