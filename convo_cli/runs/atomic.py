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
from contextlib import contextmanager, suppress
from itertools import chain, count
from pathlib import Path
from typing import Any, BinaryIO

from convo_cli.errors import CheckpointError, ConvoError, DiskError
from convo_cli.files import Folder, UnsafeFileError, only_regular, opened, read_file, require_regular
from convo_cli.runs.snapshot import Snapshot

MANIFEST_FILE = "MANIFEST.json"
_FORMAT = 1
_ASIDE = ".tmp-"
_REPLACED = ".replaced"
_HASHERS = 4
_TEXTS = {".json", ".jinja", ".model", ".txt"}
_MAX_TEXT_BYTES = 2**28
"""Of a text file, which is read at once; the largest tokenizer.json known is an eighth of it."""
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
    except UnsafeFileError as error:
        raise DiskError(f"{error.filename or path}: {error.strerror}", hint=error.hint) from error
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


def write_file(path: Path, content: str | bytes, *, below: Path | None = None) -> None:
    """Write a small file whole or not at all; see `writing`."""
    with writing(path, below=below) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def writing(path: Path, *, below: Path | None = None) -> Iterator[BinaryIO]:
    """A file to write into that takes its name at the end, or is gone where anything is raised before.

    DiskError where a device, a pipe, a link or a directory has the name, or a link is on the way to it from ``below``,
    the run directory that it lies in.
    """
    with disk_errors(path), opened(path.parent, below=below) as home, _writing(home, path.name) as file:
        yield file


@contextmanager
def _writing(home: Folder, name: str) -> Iterator[BinaryIO]:
    aside = f"{_ASIDE}{name}-{os.getpid()}"
    home.require_regular(name)
    home.delete(aside)
    try:
        with home.open(aside, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        home.require_regular(name)
        home.replace(aside, name)
    finally:
        home.delete(aside)
    home.sync()


def publish_directory(path: Path, fill: Callable[[Path], None], *, below: Path | None = None) -> None:
    """Make a directory whole or not at all: ``fill`` writes into one beside it, which is sealed and renamed.

    The seal is MANIFEST.json with every file's size and SHA-256. A directory of that name is replaced; a crash between
    taking it away and putting the new one in its place is undone by `remove_leftovers`. ``below``: see `writing`.
    """
    aside = f"{_ASIDE}{path.name}-{os.getpid()}"
    replaced = f"{_ASIDE}{path.name}{_REPLACED}"
    with disk_errors(path):
        if not path.parent.exists():
            make_directory(path.parent)
        with opened(path.parent, below=below) as home:
            home.delete(aside)
            home.make(aside)
            try:
                with home.inside(aside) as made:
                    fill(made.pinned)
                    _seal(made)
                    if home.status(path.name) is not None:
                        home.delete(replaced)
                        home.rename(path.name, replaced)
                    try:
                        home.rename(aside, path.name)
                    except OSError:
                        if home.status(replaced) is not None:
                            home.rename(replaced, path.name)
                        raise
                    if not made.is_at(home, path.name):
                        raise DiskError(f"{path}: another process put a directory there meanwhile", hint=_ELSEWHERE)
            finally:
                with suppress(OSError):
                    home.delete(aside)
            home.sync()
            home.delete(replaced)


def remove_directory(path: Path, *, below: Path | None = None) -> None:
    """Delete a published directory without a moment in which half of it looks published."""
    doomed = f"{_ASIDE}{path.name}-{os.getpid()}"
    with disk_errors(path), opened(path.parent, below=below) as home:
        home.delete(doomed)
        home.rename(path.name, doomed)
        home.sync()
        home.delete(doomed)


def set_aside(path: Path, *, below: Path | None = None) -> Path:
    """Give a damaged directory a name that nothing looks for, and return where it is now."""
    with disk_errors(path), opened(path.parent, below=below) as home:
        names = (f"{path.name}.damaged{number}" for number in chain([""], (f"-{n}" for n in count(2))))
        aside = next(name for name in names if home.status(name) is None)
        home.rename(path.name, aside)
        home.sync()
    return path.with_name(aside)


def remove_leftovers(folder: Path, *, below: Path | None = None) -> None:
    """Delete what broken saves and removals left behind, and put back what a broken replacement took away.

    Only for the holder of the run's lock.
    """
    with disk_errors(folder), opened(folder, below=below) as home:
        for name in home.names():
            if name.startswith(_ASIDE):
                original = name.removeprefix(_ASIDE).removesuffix(_REPLACED)
                if name.endswith(_REPLACED) and home.status(original) is None:
                    home.rename(name, original)
                else:
                    home.delete(name)


def verify_directory(
    path: Path,
    *,
    may_differ: frozenset[str] = frozenset(),
    may_hold_more: bool = False,
    may_hold_links: bool = False,
) -> Snapshot:
    """Raise CheckpointError naming the first file that is missing, changed or not in the manifest.

    Returns the folder as it was before its files were hashed.

    Files named in ``may_differ`` may be changed or missing; with ``may_hold_more`` others may have been added, and with
    ``may_hold_links`` files may be links, as in a hub's cache.
    """
    before = Snapshot.of(path)
    manifest = read_manifest(path, may_be_link=may_hold_links)
    expected = {name: seal for name, seal in manifest.items() if name not in may_differ}
    with _read_errors(path):
        found = {file.name for file in path.iterdir()} - {MANIFEST_FILE} - may_differ
    for name in sorted(expected.keys() if may_hold_more else expected.keys() | found):
        if name not in expected:
            raise _damage(f"{path / name}: not part of the checkpoint as it was saved")
        if name not in found:
            raise _damage(f"{path / name}: missing")
        _verify(path / name, *expected[name], may_be_link=may_hold_links)
    return before


def has_all_files(path: Path) -> bool:
    """Whether every file of the manifest is there in its size: what can be said without reading them."""
    try:
        return all((path / name).lstat().st_size == size for name, (size, _) in read_manifest(path).items())
    except (CheckpointError, OSError):
        return False


def verify_file(file: Path) -> None:
    """Do for one file of a published directory what `verify_directory` does for all."""
    expected = read_manifest(file.parent)
    if file.name not in expected:
        raise _damage(f"{file}: not part of the checkpoint as it was saved")
    _verify(file, *expected[file.name])


def read_manifest(path: Path, *, may_be_link: bool = False) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 of each file of a published directory, by name; CheckpointError where it has no whole seal."""
    file = path / MANIFEST_FILE
    try:
        with _read_errors(file):
            manifest = json.loads(read_file(file.resolve() if may_be_link else file))
        version = manifest.get("format")
        files = {str(name): (int(entry["size"]), str(entry["sha256"])) for name, entry in manifest["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damage(f"{file}: not a readable manifest ({error})") from error
    if outside := [name for name in files if not name or Path(name).name != name]:
        raise _damage(f"{file}: not a readable manifest ({outside[0]!r:.100} is not the name of a file beside it)")
    if version != _FORMAT:
        raise CheckpointError(
            f"{file}: format {version!r}, but this convo reads format {_FORMAT}",
            hint="open it with the convo that wrote it",
        )
    return files


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content in hexadecimal; UnsafeFileError for a link, or what is no regular file."""
    with open(path, "rb", buffering=0, opener=only_regular) as file:
        return _sha256(file)


def _sha256(file: Any) -> str:
    digest, block = hashlib.sha256(), memoryview(bytearray(1 << 18))
    while size := file.readinto(block):
        digest.update(block[:size])
    return digest.hexdigest()


def _verify(file: Path, size: int, digest: str, *, may_be_link: bool = False) -> None:
    with _read_errors(file):
        real = file.resolve() if may_be_link else file
        require_regular(real)
        actual = real.lstat().st_size
        if actual != size:
            raise _damage(f"{file}: damaged ({actual} bytes, saved with {size})")
        if file.suffix in _TEXTS and size > _MAX_TEXT_BYTES:
            raise _damage(f"{file}: {size:,} bytes, and such a file has at most {_MAX_TEXT_BYTES:,}")
        if file_sha256(real) != digest:
            raise _damage(f"{file}: damaged (its content is not what was saved)")


@contextmanager
def _read_errors(file: Path) -> Iterator[None]:
    """Tell what is damaged from what one is only not allowed to read: the latter is no reason to take another."""
    try:
        yield
    except UnsafeFileError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror})", hint=error.hint) from error
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


def _seal(folder: Folder) -> None:
    """Hash from the page cache while the disk takes the files; one fsync that fails is the end of all of it."""
    mode = 0o666 & ~_umask()
    names = folder.names()

    def hashed(name: str) -> str:
        with folder.open(name, "rb") as file:
            return _sha256(file)

    # Flushing has a thread to itself: small files wait in fsync for the large ones, and would keep hashing waiting too.
    with ThreadPoolExecutor(_HASHERS) as pool:
        digests = pool.map(hashed, names)
        sizes = [_flush(folder, name, mode) for name in names]
        seals = zip(sizes, digests, strict=True)
        entries = {name: {"size": size, "sha256": digest} for name, (size, digest) in zip(names, seals, strict=True)}
    with _writing(folder, MANIFEST_FILE) as file:
        file.write(json.dumps({"format": _FORMAT, "files": entries}, indent=2).encode())


def _flush(folder: Folder, name: str, mode: int) -> int:
    """Wait until a file is on the disk; its size."""
    with folder.open(name, "r+b") as file:
        os.chmod(file.fileno() if os.chmod in os.supports_fd else folder.path / name, mode)  # safetensors writes 0600
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size


def _mebibytes(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.1f} MiB"


def sync_file(path: Path) -> None:
    """Wait until the content of a file is on the disk; a missing file is fine."""
    mode = "rb" if os.name == "posix" else "r+b"  # Windows flushes only what may be written
    with disk_errors(path), suppress(FileNotFoundError), open(path, mode, opener=only_regular) as file:
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Wait until the names in a directory are on the disk."""
    with opened(path) as folder:
        folder.sync()


def _umask() -> int:
    current = os.umask(0o077)
    os.umask(current)
    return current
