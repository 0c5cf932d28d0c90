"""Forged changes to published folders, which are sealed again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def seal_again(folder: Path) -> None:
    """Write a manifest that matches the files in the folder."""
    manifest = folder / "MANIFEST.json"
    content = json.loads(manifest.read_bytes())
    content["files"] = {
        file.name: {
            "size": file.stat().st_size,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
        for file in folder.iterdir()
        if file != manifest
    }
    manifest.write_text(json.dumps(content))
