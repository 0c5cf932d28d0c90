"""Writing so that no reader and no power cut ever sees half of it: write aside, flush, rename, flush the name."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from convo_cli.errors import CheckpointError, DiskError

MANIFEST_FILE = "MANIFEST.json"
_ASIDE = ".tmp-"


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write into a DiskError that names the path."""
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"{path}: {error.strerror or error}",
            hint="free some space, or choose another place with --set output_dir=…; what was saved before is intact",
        ) from error


def write_file(path: Path, content: str | bytes) -> None:
    """Write a small file whole or not at all."""
    data = content.encode() if isinstance(content, str) else content
    aside = path.with_name(f"{_ASIDE}{path.name}-{os.getpid()}")
    with disk_errors(path):
        try:
            with open(aside, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
        _sync_directory(path.parent)


def publish_directory(path: Path, fill: Callable[[Path], None]) -> None:
    """Make a directory whole or not at all: ``fill`` writes into one beside it, which is sealed and renamed.

    The seal is MANIFEST.json with every file's size and SHA-256. A directory of that name is replaced.
    """
    aside = path.with_name(f"{_ASIDE}{path.name}-{os.getpid()}")
    with disk_errors(path):
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            fill(aside)
            _seal(aside)
            if path.exists():
                remove_directory(path)
            os.rename(aside, path)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        _sync_directory(path.parent)


def remove_directory(path: Path) -> None:
    """Delete a published directory without a moment in which half of it looks published."""
    doomed = path.with_name(f"{_ASIDE}{path.name}-doomed-{os.getpid()}")
    os.rename(path, doomed)
    shutil.rmtree(doomed)


def remove_leftovers(folder: Path) -> None:
    """Delete what broken saves and removals left behind; only for whoever holds the run's lock."""
    for path in folder.glob(f"{_ASIDE}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def verify_directory(path: Path) -> None:
    """Raise CheckpointError naming the first file that is missing, changed or not in the manifest."""
    try:
        manifest = json.loads((path / MANIFEST_FILE).read_bytes())
        expected = {str(name): (int(entry["size"]), str(entry["sha256"])) for name, entry in manifest["files"].items()}
    except FileNotFoundError:
        raise CheckpointError(f"{path / MANIFEST_FILE}: not found, so the checkpoint is not whole") from None
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise CheckpointError(f"{path / MANIFEST_FILE}: not a readable manifest ({error})") from error
    found = {file.name for file in path.iterdir()} - {MANIFEST_FILE}
    for name in sorted(expected.keys() | found):
        file = path / name
        if name not in expected:
            raise CheckpointError(f"{file}: not part of the checkpoint as it was saved")
        if name not in found:
            raise CheckpointError(f"{file}: missing")
        size, digest = expected[name]
        if file.stat().st_size != size:
            raise CheckpointError(f"{file}: damaged ({file.stat().st_size} bytes, saved with {size})")
        if file_sha256(file) != digest:
            raise CheckpointError(f"{file}: damaged (its content is not what was saved)")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content in hexadecimal."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _seal(folder: Path) -> None:
    files = {}
    mode = 0o666 & ~_umask()
    for file in sorted(folder.iterdir()):
        os.chmod(file, mode)  # safetensors writes 0600 whatever the umask says
        with open(file, "rb") as opened:
            os.fsync(opened.fileno())
        files[file.name] = {"size": file.stat().st_size, "sha256": file_sha256(file)}
    manifest = {"format": 1, "files": files}
    with open(folder / MANIFEST_FILE, "w", encoding="utf-8") as file_handle:
        json.dump(manifest, file_handle, indent=2)
        file_handle.flush()
        os.fsync(file_handle.fileno())
    _sync_directory(folder)


def _sync_directory(path: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    current = os.umask(0o077)
    os.umask(current)
    return current
