"""DailyDialog, the data of two presets: its files, source, licence, and conversion."""

from __future__ import annotations

import sys
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
SCRIPT = (
    "import json, pathlib, sys",
    "old, new = map(pathlib.Path, sys.argv[1:])",
    "lines = [line.split('__eou__') for line in old.open(encoding='utf-8')]",
    "dialogues = [[turn.strip() for turn in line if turn.strip()] for line in lines]",
    "new.parent.mkdir(parents=True, exist_ok=True)",
    "texts = (json.dumps(dialogue, ensure_ascii=False) for dialogue in dialogues if dialogue)",
    r"new.write_text('\n'.join(texts) + '\n', encoding='utf-8')",
)
"""Program that converts OLD, a file of the archive with __eou__ after each turn, to JSONL."""
NOTE = (
    f"DailyDialog is licensed {LICENCE}: no commercial use of the dialogues or, to be safe, of a "
    f"model trained on them. It does not come with convo: get its archive from {SOURCE}, and "
    f"convert its files to train.jsonl, valid.jsonl and test.jsonl in {FOLDER}/ (`convo "
    f"validate-data {FOLDER}/train.jsonl` prints the command for a missing file)."
)


def how_to_get(path: Path) -> str | None:
    """Return the hint for a missing file of DailyDialog; None for any other path."""
    old = _NAMES_IN_ARCHIVE.get(path.name.lower())
    if old is None or path.parent.name.lower() != "dailydialog":
        return None
    return (
        f"DailyDialog does not come with convo: get its archive from {SOURCE} (licence {LICENCE}: "
        f"no commercial use); to convert the archive's {old}:\n"
        f'  {typeable(sys.executable)} -c "{"; ".join(SCRIPT)}" {old} {typeable(path)}'
    )
