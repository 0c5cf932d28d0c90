"""Differences of an export's files from its manifest: all of them, not only the first."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from convo_cli.events import Emit, Progress
from convo_cli.export.format import CARD_FILE
from convo_cli.storage.files import UnsafeFileError
from convo_cli.storage.sealed import MANIFEST_FILE, file_sha256, read_manifest
from convo_cli.wording import on_one_line

_BESIDE = (".md", ".txt", ".png")
"""Suffixes of files that people and hubs add, and that no runtime reads; LICENSE has none."""


def manifest_differences(folder: Path, notes: list[str], emit: Emit) -> Iterator[str]:
    """Yield each difference from the manifest; notes name what may differ."""
    manifest = read_manifest(folder, may_be_link=True)
    total = len(manifest)
    for number, (name, (size, digest)) in enumerate(sorted(manifest.items())):
        emit(Progress("verifying the files", number, total))
        file, shown = folder / name, on_one_line(name)
        try:
            real = Path(os.path.realpath(file))
            actual = real.stat().st_size
            if actual != size:
                found = f"{shown}: {actual:,} bytes instead of {size:,}"
            elif file_sha256(real) != digest:
                found = f"{shown}: its content is not what was saved"
            else:
                continue
        except FileNotFoundError:
            found = f"{shown}: missing"
        except PermissionError:
            raise
        except (UnsafeFileError, OSError) as error:
            found = f"{shown}: cannot be read ({getattr(error, 'strerror', None) or error})"
        if name == CARD_FILE:
            notes.append(f"{found}, which is allowed: it is the model card")
        else:
            yield found
    emit(Progress("verifying the files", total, total))
    for path in sorted(folder.iterdir()):
        name = path.name
        is_beside = name.startswith(".") or path.suffix in _BESIDE or name == "LICENSE"
        if name not in manifest and name != MANIFEST_FILE and not is_beside:
            yield f"{on_one_line(name)}: not part of the export"
