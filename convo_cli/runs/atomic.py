"""Writing so that no reader and no power cut ever sees half of it: write aside, flush, rename, flush the name."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from convo_cli.errors import CheckpointError, ConvoError, DiskError
from convo_cli.filetypes import special_kind_at
from convo_cli.runs.snapshot import Snapshot

MANIFEST_FILE = "MANIFEST.json"
_FORMAT = 1
_ASIDE = ".tmp-"
_REPLACED = ".replaced"
_HASHERS = 4
_RUST_ERROR = re.compile(r"\(os error (\d+)\)")

_INTACT = "; what was saved before is intact"
_ELSEWHERE = "choose another place with --set output_dir=…"
_HINTS = {
    errno.ENOSPC: f"free some space, or {_ELSEWHERE}",
    errno.EDQUOT: f"your quota there is used up: delete files of yours, or {_ELSEWHERE}",
    errno.EROFS: f"mount it for writing, or {_ELSEWHERE}",
    errno.EACCES: f"ask for the right to write there (`ls -ld` shows who has it), or {_ELSEWHERE}",
    errno.EPERM: f"ask for the right to write there (`ls -ld` and `lsattr -d` show who has it), or {_ELSEWHERE}",
    errno.EIO: f"the disk reported an error: look at the kernel's log (dmesg), and {_ELSEWHERE}",
}


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write into a DiskError that names the path."""
    try:
        yield
    except ConvoError:
        raise
    except Exception as error:
        if isinstance(error, OSError):
            number, reason = error.errno, error.strerror or str(error)
        elif match := _RUST_ERROR.search(str(error)):  # safetensors and tokenizers raise types of their own
            number = int(match.group(1))
            reason = os.strerror(number)
        else:
            raise
        hint = _HINTS.get(number or 0, _ELSEWHERE) + _INTACT
        raise DiskError(f"{path}: {reason}", hint=hint) from error


def require_space(path: Path, num_bytes: int) -> None:
    """Raise DiskError where the file system that ``path`` will be made in has less than this free."""
    with disk_errors(path):
        total, _, free = shutil.disk_usage(path.parent)
    if total and free < num_bytes:  # a total of 0: a file system that does not tell
        raise DiskError(
            f"{path}: needs {_mebibytes(num_bytes)}, but only {_mebibytes(free)} are free in {path.parent}",
            hint=_HINTS[errno.ENOSPC] + _INTACT,
        )


def make_directory(path: Path) -> None:
    """Make a directory, and those above it that are missing, so that a power cut does not lose their names."""
    with disk_errors(path):
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True)
        for folder in missing:
            sync_directory(folder.parent)


def require_regular(path: Path) -> None:
    """Raise DiskError where a device, a pipe, a link or a directory has the name of a file that is to be written."""
    with disk_errors(path):
        if (kind := special_kind_at(path)) is not None:
            raise DiskError(f"{path}: not a regular file, but {kind}", hint="choose another name, or remove it")


def write_file(path: Path, content: str | bytes) -> None:
    """Write a small file whole or not at all."""
    with writing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A file to write into that takes its name at the end, or is gone where anything is raised before."""
    require_regular(path)
    aside = path.with_name(f"{_ASIDE}{path.name}-{os.getpid()}")
    with disk_errors(path):
        _delete(aside)
        try:
            with open(aside, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            require_regular(path)
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
        sync_directory(path.parent)


def publish_directory(path: Path, fill: Callable[[Path], None]) -> None:
    """Make a directory whole or not at all: ``fill`` writes into one beside it, which is sealed and renamed.

    The seal is MANIFEST.json with every file's size and SHA-256. A directory of that name is replaced; a crash between
    taking it away and putting the new one in its place is undone by `remove_leftovers`.
    """
    aside = path.with_name(f"{_ASIDE}{path.name}-{os.getpid()}")
    replaced = path.with_name(f"{_ASIDE}{path.name}{_REPLACED}")
    with disk_errors(path):
        if not path.parent.exists():
            make_directory(path.parent)
        _delete(aside)
        aside.mkdir()
        try:
            fill(aside)
            _seal(aside)
            if os.path.lexists(path):
                _delete(replaced)
                os.rename(path, replaced)
            try:
                os.rename(aside, path)
            except OSError:
                if os.path.lexists(replaced):
                    os.rename(replaced, path)
                raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        sync_directory(path.parent)
        _delete(replaced)


def remove_directory(path: Path) -> None:
    """Delete a published directory without a moment in which half of it looks published."""
    doomed = path.with_name(f"{_ASIDE}{path.name}-{os.getpid()}")
    with disk_errors(path):
        _delete(doomed)
        os.rename(path, doomed)
        sync_directory(path.parent)
        _delete(doomed)


def set_aside(path: Path) -> Path:
    """Give a damaged directory a name that nothing looks for, and return where it is now."""
    aside = path.with_name(f"{path.name}.damaged")
    number = 1
    while os.path.lexists(aside):
        number += 1
        aside = path.with_name(f"{path.name}.damaged-{number}")
    with disk_errors(path):
        os.rename(path, aside)
        sync_directory(path.parent)
    return aside


def remove_leftovers(folder: Path) -> None:
    """Delete what broken saves and removals left behind, and put back what a broken replacement took away.

    Only for the holder of the run's lock.
    """
    with disk_errors(folder):
        for path in folder.glob(f"{_ASIDE}*"):
            home = folder / path.name.removeprefix(_ASIDE).removesuffix(_REPLACED)
            if path.name.endswith(_REPLACED) and not home.exists():
                os.rename(path, home)
            else:
                _delete(path)


def verify_directory(path: Path, *, may_differ: frozenset[str] = frozenset(), may_hold_more: bool = False) -> Snapshot:
    """Raise CheckpointError naming the first file that is missing, changed or not in the manifest.

    Returns the folder as it was before its files were hashed.

    Files named in ``may_differ`` may be changed or missing; with ``may_hold_more`` others may have been added.
    """
    before = Snapshot.of(path)
    expected = {name: seal for name, seal in read_manifest(path).items() if name not in may_differ}
    with _read_errors(path):
        found = {file.name for file in path.iterdir()} - {MANIFEST_FILE} - may_differ
    for name in sorted(expected.keys() if may_hold_more else expected.keys() | found):
        if name not in expected:
            raise _damage(f"{path / name}: not part of the checkpoint as it was saved")
        if name not in found:
            raise _damage(f"{path / name}: missing")
        _verify(path / name, *expected[name])
    return before


def has_all_files(path: Path) -> bool:
    """Whether every file of the manifest is there in its size: what can be said without reading them."""
    try:
        return all((path / name).stat().st_size == size for name, (size, _) in read_manifest(path).items())
    except (CheckpointError, OSError):
        return False


def verify_file(file: Path) -> None:
    """Do for one file of a published directory what `verify_directory` does for all."""
    expected = read_manifest(file.parent)
    if file.name not in expected:
        raise _damage(f"{file}: not part of the checkpoint as it was saved")
    _verify(file, *expected[file.name])


def read_manifest(path: Path) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 of each file of a published directory, by name; CheckpointError where it has no whole seal."""
    file = path / MANIFEST_FILE
    try:
        with _read_errors(file):
            manifest = json.loads(file.read_bytes())
        version = manifest.get("format")
        files = {str(name): (int(entry["size"]), str(entry["sha256"])) for name, entry in manifest["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damage(f"{file}: not a readable manifest ({error})") from error
    if version != _FORMAT:
        raise CheckpointError(
            f"{file}: format {version!r}, but this convo reads format {_FORMAT}",
            hint="open it with the convo that wrote it",
        )
    return files


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content in hexadecimal."""
    digest, block = hashlib.sha256(), memoryview(bytearray(1 << 18))
    with open(path, "rb", buffering=0) as file:
        while size := file.readinto(block):
            digest.update(block[:size])
    return digest.hexdigest()


def _verify(file: Path, size: int, digest: str) -> None:
    with _read_errors(file):
        actual = file.stat().st_size
        if actual != size:
            raise _damage(f"{file}: damaged ({actual} bytes, saved with {size})")
        if file_sha256(file) != digest:
            raise _damage(f"{file}: damaged (its content is not what was saved)")


@contextmanager
def _read_errors(file: Path) -> Iterator[None]:
    """Tell what is damaged from what one is only not allowed to read: the latter is no reason to take another."""
    try:
        yield
    except FileNotFoundError:
        raise _damage(f"{file}: missing, so the folder is not whole") from None
    except PermissionError as error:
        raise DiskError(
            f"{file}: {error.strerror}", hint="ask for the right to read it (`ls -l` shows who has it)"
        ) from error
    except OSError as error:
        raise _damage(f"{file}: cannot be read ({error.strerror})") from error


def _damage(message: str) -> CheckpointError:
    return CheckpointError(message, hint="copy the folder again from where it is whole, or use another checkpoint")


def _seal(folder: Path) -> None:
    """Hash from the page cache while the disk takes the files; one fsync that fails is the end of all of it."""
    mode = 0o666 & ~_umask()
    files = sorted(folder.iterdir())
    # Flushing has a thread to itself: small files wait in fsync for the large ones, and would keep hashing waiting too.
    with ThreadPoolExecutor(_HASHERS) as pool:
        digests = pool.map(file_sha256, files)
        for file in files:
            _flush(file, mode)
        entries = {
            file.name: {"size": file.stat().st_size, "sha256": digest}
            for file, digest in zip(files, digests, strict=True)
        }
    write_file(folder / MANIFEST_FILE, json.dumps({"format": _FORMAT, "files": entries}, indent=2))


def _flush(file: Path, mode: int) -> None:
    os.chmod(file, mode)  # safetensors writes 0600 whatever the umask says
    with open(file, "r+b") as opened:
        os.fsync(opened.fileno())


def _delete(path: Path) -> None:
    """Remove a file, a folder or a link, but never what a link leads to; nothing there is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _mebibytes(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.1f} MiB"


def sync_file(path: Path) -> None:
    """Wait until the content of a file is on the disk; a missing file is fine."""
    if path.exists():
        with disk_errors(path), open(path, "r+b") as file:
            os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Wait until the names in a directory are on the disk."""
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
