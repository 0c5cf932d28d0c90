"""Seal of a published directory, and its verification.

The seal is MANIFEST.json, with the size and SHA-256 of every file. It proves that a directory is
whole, but not its origin: anyone who may write there can seal it again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from convo_cli.errors import CheckpointError, DiskError
from convo_cli.storage.files import UnsafeFileError, only_regular, read_file, require_regular
from convo_cli.storage.folder import Folder
from convo_cli.storage.foreign_files import MAX_TEXT_BYTES, TEXT_SUFFIXES
from convo_cli.storage.snapshot import Snapshot
from convo_cli.wording import on_one_line, quoted

MANIFEST_FILE = "MANIFEST.json"
_FORMAT = 1
_HASHERS = 4

Seal: TypeAlias = "tuple[int, str]"
"""Size and SHA-256 of a file."""


def verify_directory(
    path: Path,
    *,
    may_differ: frozenset[str] = frozenset(),
    may_hold_more: bool = False,
    may_hold_links: bool = False,
) -> Snapshot:
    """Raise CheckpointError for the first file that is missing, changed or not in the manifest.

    Returns a snapshot from before the files were hashed.

    Files named in ``may_differ`` may be changed or missing. With ``may_hold_more`` files may have
    been added, and with ``may_hold_links`` files may be links, as in the hub's cache.
    """
    before = Snapshot.of(path)
    manifest = read_manifest(path, may_be_link=may_hold_links)
    expected = {name: seal for name, seal in manifest.items() if name not in may_differ}
    with _read_errors(path):
        found = {file.name for file in path.iterdir()} - {MANIFEST_FILE} - may_differ
    for name in sorted(expected.keys() if may_hold_more else expected.keys() | found):
        shown = on_one_line(str(path / name))
        if name not in expected:
            raise _damage(f"{shown}: not part of the checkpoint as it was saved")
        if name not in found:
            raise _damage(f"{shown}: missing")
        _verify(path / name, *expected[name], may_be_link=may_hold_links)
    return before


def has_all_files(path: Path) -> bool:
    """Return whether every file of the manifest exists with its size; the files are not read."""
    try:
        return all(
            (path / name).lstat().st_size == size for name, (size, _) in read_manifest(path).items()
        )
    except (CheckpointError, OSError):
        return False


def verify_file(file: Path) -> None:
    """Verify one file of a published directory, as `verify_directory` does for all."""
    expected = read_manifest(file.parent)
    if file.name not in expected:
        raise _damage(f"{file}: not part of the checkpoint as it was saved")
    _verify(file, *expected[file.name])


def read_manifest(path: Path, *, may_be_link: bool = False) -> dict[str, Seal]:
    """Return size and SHA-256 of each sealed file by name; CheckpointError without a whole seal."""
    file = path / MANIFEST_FILE
    try:
        with _read_errors(file):
            manifest = json.loads(read_file(Path(os.path.realpath(file)) if may_be_link else file))
        version = manifest.get("format")
        files = {
            str(name): (int(entry["size"]), str(entry["sha256"]))
            for name, entry in manifest["files"].items()
        }
    except (
        ArithmeticError, ValueError, KeyError, TypeError, AttributeError, RecursionError,
    ) as error:  # fmt: skip
        raise _damage(f"{file}: not a readable manifest ({error})") from error
    if outside := [name for name in files if not _is_name(name)]:
        raise _damage(
            f"{file}: not a readable manifest ({quoted(outside[0], 100)} is not the name of a file "
            "beside it)"
        )
    if version != _FORMAT:
        raise CheckpointError(
            f"{file}: format {json.dumps(version)[:40]}, but this convo reads format {_FORMAT}",
            hint="open it with the convo that wrote it",
        )
    return files


def _is_name(name: str) -> bool:
    """Return whether a text can be the name of a file in a folder."""
    is_text = not any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in name)
    return name not in ("", "..") and Path(name).name == name and is_text


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a regular file in hexadecimal; UnsafeFileError for any other."""
    with open(path, "rb", buffering=0, opener=only_regular) as file:
        return _sha256(file)


def _sha256(file: Any) -> str:
    digest, block = hashlib.sha256(), memoryview(bytearray(1 << 18))
    while size := file.readinto(block):
        digest.update(block[:size])
    return digest.hexdigest()


def _verify(file: Path, size: int, digest: str, *, may_be_link: bool = False) -> None:
    with _read_errors(file):
        real = Path(os.path.realpath(file)) if may_be_link else file
        require_regular(real)
        actual = real.lstat().st_size
        if actual != size:
            raise _damage(f"{file}: damaged ({actual:,} bytes, but saved with {size:,})")
        if file.suffix in TEXT_SUFFIXES and size > MAX_TEXT_BYTES:
            raise _damage(
                f"{file}: {size:,} bytes; a {file.suffix} file may have at most {MAX_TEXT_BYTES:,}"
            )
        if file_sha256(real) != digest:
            raise _damage(f"{file}: damaged (its content is not what was saved)")


@contextmanager
def _read_errors(file: Path) -> Iterator[None]:
    """Raise CheckpointError for damage, but DiskError for missing permission.

    A CheckpointError may make the caller load another checkpoint; a DiskError ends the command.
    """
    try:
        yield
    except UnsafeFileError as error:
        raise CheckpointError(
            f"{file}: cannot be read ({error.strerror})", hint=error.hint
        ) from error
    except FileNotFoundError:
        raise _damage(f"{file}: missing, so the folder is incomplete") from None
    except PermissionError as error:
        raise DiskError(
            f"{file}: {error.strerror}",
            hint="you need read permission (see `ls -l`)",
        ) from error
    except OSError as error:
        raise _damage(f"{file}: cannot be read ({error.strerror})") from error


def _damage(message: str) -> CheckpointError:
    return CheckpointError(
        message, hint="copy the folder again from an intact copy, or use another checkpoint"
    )


def sealed_manifest(folder: Folder, known: Mapping[str, Seal] = MappingProxyType({})) -> bytes:
    """Flush and hash every file of a directory, and return the content of its MANIFEST.json.

    Files are hashed from the page cache while the disk writes them; a failed fsync ends
    the save. ``known`` are the seals of files that their writers have flushed and hashed.
    """
    mode = 0o666 & ~_umask()
    names = [name for name in folder.names() if name not in known]

    def hashed(name: str) -> str:
        with folder.open(name, "rb") as file:
            return _sha256(file)

    # Flushing has its own thread: small files wait in fsync for large ones and would delay hashing.
    with ThreadPoolExecutor(_HASHERS) as pool:
        digests = pool.map(hashed, names)
        sizes = [_flush(folder, name, mode) for name in names]
        seals = {**known, **dict(zip(names, zip(sizes, digests, strict=True), strict=True))}
    entries = {
        name: {"size": size, "sha256": digest} for name, (size, digest) in sorted(seals.items())
    }
    return json.dumps({"format": _FORMAT, "files": entries}, indent=2).encode()


def _flush(folder: Folder, name: str, mode: int) -> int:
    """Set a file's mode, wait until it is on the disk, and return its size."""
    with folder.open(name, "r+b") as file:
        # safetensors writes mode 0600.
        os.chmod(file.fileno() if os.chmod in os.supports_fd else folder.path / name, mode)
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size


def _umask() -> int:
    current = os.umask(0o077)
    os.umask(current)
    return current
