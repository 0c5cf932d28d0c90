"""Cache of prepared data: folders named after a hash of their inputs, each whole or absent.

A folder is filled under its own lock: a second process waits and then reads the result of the
first. A killed process leaves at most a hidden folder, which the next one removes. Every file is
verified before it is read; a folder that fails is created again. Only this user can enter the
cache, and a folder that another user could have written is not read.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from filelock import FileLock, Timeout

from convo_cli.errors import ChangedError, CheckpointError, typeable
from convo_cli.events import Emit, Notice, begin
from convo_cli.storage.access import find_untrusted, make_private, masked, only_own
from convo_cli.storage.atomic import disk_errors, publish_directory
from convo_cli.storage.sealed import verify_directory
from convo_cli.storage.snapshot import Snapshot

T = TypeVar("T")

NAME = ".convo-cache"
"""Name of the cache inside output_dir, so that it is deleted together with the runs."""

_KEEP = 8
"""Folders kept, counted apart for reply dialogues, which are many; a run uses at most four."""
_KEY_FILE = "key.json"
_OURS = re.compile(
    r"(?P<aside>\.tmp-)?(?P<folder>(?:tokens|refused|tokenizer|replies)-[0-9a-f]{16}-[0-9a-f]{16})"
    r"(?(aside)-.*)"
)
_LOCK = ".lock"


class Cache:
    """A cache inside ``home``, or a temporary one if there is no ``home`` or it is not writable."""

    def __init__(self, home: Path | None, emit: Emit) -> None:
        self._emit = emit
        self._is_kept = home is not None and _is_writable(home / NAME)
        self._root = home / NAME if home is not None and self._is_kept else _temporary()
        self._num_got = 0

    @property
    def has_kept(self) -> bool:
        """Return whether this process has a finished folder that the next one will find."""
        return self._is_kept and self._num_got > 0

    def opener(self, path: str, flags: int) -> int:
        """Open a file of the cache (an ``opener`` for `open`); PermissionError if it is not ours.

        Owners are not checked in a temporary cache, because its file system may not store them.
        """
        return (only_own if self._is_kept else os.open)(path, flags)

    def get(
        self,
        kind: str,
        key: Mapping[str, Any],
        make: Callable[[Path], None],
        open_: Callable[[Path], T],
        variant: Mapping[str, Any] | None = None,
    ) -> tuple[T, bool]:
        """Return what ``open_`` reads from this folder, and whether the folder existed.

        ``make`` fills an empty folder if none exists, or if ``open_`` raises CheckpointError or
        OSError for it. If ``make`` raises, no folder is left behind.
        """
        with self._locked(kind, key, variant or {}) as folder:
            found = self._found(folder, open_)
            if not found:
                publish_directory(folder, partial(_fill, make, key, variant or {}))
            os.utime(folder)
            opened = found[0] if found else open_(folder)
        self._num_got += 1
        self._prune()
        return opened, bool(found)

    def keep(
        self, kind: str, key: Mapping[str, Any], variant: Mapping[str, Any], made: Path
    ) -> None:
        """Keep the files that ``make`` wrote before it refused the data; `related` finds them."""

        def move(aside: Path) -> None:
            for file in made.iterdir():
                os.replace(file, aside / file.name)

        with self._locked(kind, key, variant) as folder:
            publish_directory(folder, partial(_fill, move, key, variant))

    def related(
        self, kinds: Sequence[str], key: Mapping[str, Any], open_: Callable[[Path], T]
    ) -> list[tuple[Mapping[str, Any], T]]:
        """Return the variants of this key, of any of these kinds, with what ``open_`` reads.

        To be called while ``make`` fills a folder of the cache.
        """
        found = []
        for kind in kinds:
            family = _name(kind, key, {}).rpartition("-")[0]
            for folder in sorted(self._root.glob(f"{family}-*[0-9a-f]")):
                # Skipped: a locked folder, which is being filled (perhaps by this process), and a
                # damaged one.
                with (
                    suppress(Timeout, CheckpointError, ChangedError, OSError),
                    FileLock(_lock_of(folder)).acquire(timeout=0),
                ):
                    verified = self._verified(folder)
                    variant = self._read_variant(folder, kind, key)
                    opened = open_(folder)
                    verified.require_unchanged()
                    found.append((variant, opened))
        return found

    def _found(self, folder: Path, open_: Callable[[Path], T]) -> list[T]:
        """Return what ``open_`` reads, in a list; empty if the folder must be created."""
        if not os.path.lexists(folder):
            return []
        begin("verifying the prepared data", self._emit)
        try:
            verified = self._verified(folder)
            opened = open_(folder)
        except (CheckpointError, OSError) as error:
            what = f"{folder}: {error.strerror or error}" if isinstance(error, OSError) else error
            self._emit(Notice(f"{what}; preparing the data again", is_warning=True))
            return []
        verified.require_unchanged()
        return [opened]

    def _verified(self, folder: Path) -> Snapshot:
        """Verify a folder and that only this user could write it; return a snapshot from before."""
        if self._is_kept and (untrusted := find_untrusted(folder)):
            raise CheckpointError(untrusted)
        return verify_directory(folder)

    def _read_variant(self, folder: Path, kind: str, key: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the variant of a folder; CheckpointError if it does not match the name."""
        try:
            with open(folder / _KEY_FILE, "rb", opener=self.opener) as file:
                variant = json.load(file)["variant"]
            if _name(kind, key, variant) == folder.name:
                return cast("Mapping[str, Any]", variant)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise CheckpointError(f"{folder / _KEY_FILE}: {error}") from error
        raise CheckpointError(f"{folder / _KEY_FILE}: belongs to another folder")

    def _prepare_root(self) -> None:
        """Create the cache closed to other users, or a temporary one if they could write to it."""
        self._root.parent.mkdir(parents=True, exist_ok=True)
        if self._is_kept and (reason := make_private(self._root)):
            message = (
                f"{self._root}: not used, because {reason}; the data is prepared for this command "
                f"only. To keep prepared data, remove the folder (rm -r {typeable(self._root)}) "
                "or choose another output_dir"
            )
            self._emit(Notice(message, is_warning=True))
            self._root, self._is_kept = _temporary(), False

    @contextmanager
    def _locked(
        self, kind: str, key: Mapping[str, Any], variant: Mapping[str, Any]
    ) -> Iterator[Path]:
        """Hold the lock of a folder; if the block raises, nothing is left behind."""
        missing = [above for above in (self._root, *self._root.parents) if not above.exists()]
        with disk_errors(self._root):
            self._prepare_root()
            folder = self._root / _name(kind, key, variant)
            lock = FileLock(_lock_of(folder))
            try:
                with masked(0o700):
                    lock.acquire(timeout=0)
            except Timeout:
                self._emit(
                    Notice("another convo process is preparing the same data; waiting for it")
                )
                lock.acquire()
        try:
            with masked(0o700):
                yield folder
        except BaseException:
            with suppress(OSError):  # not empty: another process uses it
                Path(lock.lock_file).unlink()
                for above in missing:
                    above.rmdir()
            raise
        finally:
            lock.release()

    def _prune(self) -> None:
        """Remove unused folders: the least recently used, and leftovers of killed processes."""
        # OSError: another process prunes at the same time. The next run removes the rest.
        with suppress(OSError):
            ours = {path: _OURS.fullmatch(path.name) for path in self._root.iterdir()}
            found = {path: match for path, match in ours.items() if match}
            folders = [path for path, match in found.items() if not match["aside"]]
            folders.sort(key=lambda path: path.stat().st_mtime, reverse=True)
            replies = [path for path in folders if path.name.startswith("replies-")]
            others = [path for path in folders if path not in replies]
            for doomed in [*(found.keys() - set(folders)), *replies[_KEEP:], *others[_KEEP:]]:
                lock = FileLock(self._root / f"{found[doomed]['folder']}{_LOCK}")
                with suppress(Timeout), lock.acquire(timeout=0):
                    shutil.rmtree(doomed)
                    if doomed in folders:
                        Path(lock.lock_file).unlink()


def _fill(
    make: Callable[[Path], None], key: Mapping[str, Any], variant: Mapping[str, Any], aside: Path
) -> None:
    make(aside)
    (aside / _KEY_FILE).write_bytes(_text({"key": key, "variant": variant}))


def _name(kind: str, key: Mapping[str, Any], variant: Mapping[str, Any]) -> str:
    return "-".join(
        [kind, *(hashlib.sha256(_text(part)).hexdigest()[:16] for part in (key, variant))]
    )


def _temporary() -> Path:
    """Create a folder that is removed when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="convo-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _text(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, indent=1).encode()


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}{_LOCK}")


def _is_writable(folder: Path) -> bool:
    above = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return above.is_dir() and os.access(above, os.W_OK | os.X_OK)
