"""Writing so that no reader and no power cut ever sees half of it: write aside, flush, rename, flush the name."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from convo_cli.errors import CheckpointError, ConvoError, DiskError

MANIFEST_FILE = "MANIFEST.json"
_ASIDE = ".tmp-"
_REPLACED = ".replaced"
_RUST_ERROR = re.compile(r"\(os error (\d+)\)")


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write into a DiskError that names the path."""
    try:
        yield
    except ConvoError:
        raise
    except Exception as error:
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
        elif number := _RUST_ERROR.search(str(error)):  # safetensors and tokenizers raise types of their own
            reason = os.strerror(int(number.group(1)))
        else:
            raise
        raise DiskError(
            f"{path}: {reason}",
            hint="free some space, or choose another place with --set output_dir=…; what was saved before is intact",
        ) from error


def make_directory(path: Path) -> None:
    """Make a directory, and those above it that are missing, so that a power cut does not lose their names."""
    with disk_errors(path):
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True)
        for folder in missing:
            _sync_directory(folder.parent)


def write_file(path: Path, content: str | bytes) -> None:
    """Write a small file whole or not at all."""
    with writing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A file to write into that takes its name at the end, or is gone where anything is raised before."""
    aside = path.with_name(f"{_ASIDE}{path.name}-{os.getpid()}")
    with disk_errors(path):
        try:
            with open(aside, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
        _sync_directory(path.parent)


def publish_directory(path: Path, fill: Callable[[Path], None]) -> None:
    """Make a directory whole or not at all: ``fill`` writes into one beside it, which is sealed and renamed.

    The seal is MANIFEST.json with every file's size and SHA-256. A directory of that name is replaced; a crash between
    taking it away and putting the new one in its place is undone by `remove_leftovers`.
    """
    aside = path.with_name(f"{_ASIDE}{path.name}-{os.getpid()}")
    replaced = path.with_name(f"{_ASIDE}{path.name}{_REPLACED}")
    with disk_errors(path):
        shutil.rmtree(aside, ignore_errors=True)
        make_directory(aside)
        try:
            fill(aside)
            _seal(aside)
            if path.exists():
                shutil.rmtree(replaced, ignore_errors=True)
                os.rename(path, replaced)
            os.rename(aside, path)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        _sync_directory(path.parent)
        shutil.rmtree(replaced, ignore_errors=True)


def remove_directory(path: Path) -> None:
    """Delete a published directory without a moment in which half of it looks published."""
    doomed = path.with_name(f"{_ASIDE}{path.name}-{os.getpid()}")
    with disk_errors(path):
        shutil.rmtree(doomed, ignore_errors=True)
        os.rename(path, doomed)
        shutil.rmtree(doomed)


def remove_leftovers(folder: Path) -> None:
    """Delete what broken saves and removals left behind, and put back what a broken replacement took away.

    Only for whoever holds the run's lock.
    """
    with disk_errors(folder):
        for path in folder.glob(f"{_ASIDE}*"):
            home = folder / path.name.removeprefix(_ASIDE).removesuffix(_REPLACED)
            if path.name.endswith(_REPLACED) and not home.exists():
                os.rename(path, home)
            elif path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def verify_directory(path: Path, *, may_differ: frozenset[str] = frozenset(), may_hold_more: bool = False) -> None:
    """Raise CheckpointError naming the first file that is missing, changed or not in the manifest.

    Files named in ``may_differ`` may be changed or missing; with ``may_hold_more`` others may have been added.
    """
    expected = {name: seal for name, seal in read_manifest(path).items() if name not in may_differ}
    found = {file.name for file in path.iterdir()} - {MANIFEST_FILE} - may_differ
    for name in sorted(expected.keys() if may_hold_more else expected.keys() | found):
        if name not in expected:
            raise _damage(f"{path / name}: not part of the checkpoint as it was saved")
        if name not in found:
            raise _damage(f"{path / name}: missing")
        _verify(path / name, *expected[name])


def verify_file(file: Path) -> None:
    """Do for one file of a published directory what `verify_directory` does for all."""
    expected = read_manifest(file.parent)
    if file.name not in expected:
        raise _damage(f"{file}: not part of the checkpoint as it was saved")
    _verify(file, *expected[file.name])


def read_manifest(path: Path) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 of each file of a published directory, by name; CheckpointError where it has no whole seal."""
    try:
        manifest = json.loads((path / MANIFEST_FILE).read_bytes())
        return {str(name): (int(entry["size"]), str(entry["sha256"])) for name, entry in manifest["files"].items()}
    except FileNotFoundError:
        raise _damage(f"{path / MANIFEST_FILE}: not found, so the checkpoint is not whole") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise _damage(f"{path / MANIFEST_FILE}: not a readable manifest ({error})") from error


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content in hexadecimal."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _verify(file: Path, size: int, digest: str) -> None:
    try:
        actual = file.stat().st_size
        if actual != size:
            raise _damage(f"{file}: damaged ({actual} bytes, saved with {size})")
        if file_sha256(file) != digest:
            raise _damage(f"{file}: damaged (its content is not what was saved)")
    except FileNotFoundError:
        raise _damage(f"{file}: missing") from None
    except OSError as error:
        raise _damage(f"{file}: cannot be read ({error.strerror})") from error


def _damage(message: str) -> CheckpointError:
    return CheckpointError(message, hint="copy the folder again from where it is whole, or use another checkpoint")


def _seal(folder: Path) -> None:
    files = {}
    mode = 0o666 & ~_umask()
    for file in sorted(folder.iterdir()):
        os.chmod(file, mode)  # safetensors writes 0600 whatever the umask says
        with open(file, "r+b") as opened:
            os.fsync(opened.fileno())
        files[file.name] = {"size": file.stat().st_size, "sha256": file_sha256(file)}
    write_file(folder / MANIFEST_FILE, json.dumps({"format": 1, "files": files}, indent=2))


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
