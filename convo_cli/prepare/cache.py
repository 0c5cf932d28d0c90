"""Cache of prepared data: folders named after a hash of their inputs, each whole or absent.

A folder is filled under its own lock: a second process waits and then reads the result of the
first. A killed process may leave a hidden folder, which the next one removes, and an unfinished
one, from which the next one continues. Every file is verified before it is read; a folder that
fails is created again. Only this user can enter the cache, and a folder that another user could
have written is not read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast

from filelock import FileLock, Timeout

from convo_cli.errors import ChangedError, CheckpointError, typeable
from convo_cli.events import Emit, Notice, begin
from convo_cli.storage import access
from convo_cli.storage.atomic import disk_errors, publish_directory, publishing
from convo_cli.storage.folder import delete
from convo_cli.storage.sealed import Seal, verify_directory
from convo_cli.storage.snapshot import Snapshot

T = TypeVar("T")
Key: TypeAlias = Mapping[str, Any]
Seals: TypeAlias = Mapping[str, Seal]
Make: TypeAlias = Callable[[Path], Seals | None]

NAME = ".convo-cache"
"""Name of the cache inside output_dir, so that it is deleted together with the runs."""

_KEEP, _KEEP_UNFINISHED = 8, 2
"""Finished and unfinished folders kept, reply dialogues apart; a run uses at most four."""
_KEY_FILE = "key.json"
_OURS = re.compile(
    r"(?P<aside>\.tmp-)?(?P<folder>(?:tokens|refused|tokenizer|replies)-[0-9a-f]{16}-[0-9a-f]{16})"
    r"(?(aside)-.*|(?P<unfinished>\.partial)?)"
)


class Cache:
    """A cache inside ``home``, or a temporary one if there is no ``home`` or it is not writable."""

    def __init__(self, home: Path | None, emit: Emit) -> None:
        self._emit = emit
        self._is_kept = home is not None and access.is_writable(home / NAME)
        self._root = (
            home / NAME if home is not None and self._is_kept else access.temporary_directory()
        )
        self._num_got = 0

    @property
    def has_kept(self) -> bool:
        """Return whether this process has a finished folder that the next one will find."""
        return self._is_kept and self._num_got > 0

    def opener(self, path: str, flags: int) -> int:
        """Open a file of the cache (an ``opener`` for `open`); PermissionError if it is not ours.

        Owners are not checked in a temporary cache, because its file system may not store them.
        """
        return (access.only_own if self._is_kept else os.open)(path, flags)

    def get(
        self,
        kind: str,
        key: Key,
        make: Make,
        open_: Callable[[Path], T],
        variant: Key | None = None,
    ) -> tuple[T, bool]:
        """Return what ``open_`` reads from this folder, and whether the folder existed.

        ``make`` fills an empty folder if none exists, or if ``open_`` raises CheckpointError or
        OSError for it; it returns the seals of the files that it has flushed to disk itself. If it
        raises, no folder is left behind.
        """
        with self._locked(kind, key, variant or {}) as folder:
            found = self._found(folder, open_)
            if not found:
                with publishing(folder) as made:
                    made.seals.update(_fill(make, key, variant or {}, made.folder.pinned))
            with suppress(OSError):
                delete(self.unfinished(kind, key, variant or {}))
            os.utime(folder)
            opened = found[0] if found else open_(folder)
        self._num_got += 1
        self._prune()
        return opened, bool(found)

    def unfinished(self, kind: str, key: Key, variant: Key) -> Path:
        """Return where ``make`` may keep unfinished work; `get` removes it when it succeeds."""
        return self._root / f"{_name(kind, key, variant)}.partial"

    def keep(self, kind: str, key: Key, variant: Key, made: Path) -> None:
        """Keep the files that ``make`` wrote before it refused the data; `related` finds them."""

        def move(aside: Path) -> None:
            for file in made.iterdir():
                os.replace(file, aside / file.name)

        with self._locked(kind, key, variant) as folder:
            publish_directory(folder, partial(_fill, move, key, variant))

    def related(
        self, kinds: Sequence[str], key: Key, open_: Callable[[Path], T]
    ) -> list[tuple[Key, T]]:
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
        self.require_own(folder)
        return verify_directory(folder)

    def require_own(self, folder: Path) -> None:
        """Raise CheckpointError if another user could have written to a folder of the cache."""
        if self._is_kept and (untrusted := access.find_untrusted(folder)):
            raise CheckpointError(untrusted)

    def _read_variant(self, folder: Path, kind: str, key: Key) -> Key:
        """Return the variant of a folder; CheckpointError if it does not match the name."""
        try:
            with open(folder / _KEY_FILE, "rb", opener=self.opener) as file:
                variant = json.load(file)["variant"]
            if _name(kind, key, variant) == folder.name:
                return cast("Key", variant)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise CheckpointError(f"{folder / _KEY_FILE}: {error}") from error
        raise CheckpointError(f"{folder / _KEY_FILE}: belongs to another folder")

    def _prepare_root(self) -> None:
        """Create the cache closed to other users, or a temporary one if they could write to it."""
        self._root.parent.mkdir(parents=True, exist_ok=True)
        if self._is_kept and (reason := access.make_private(self._root)):
            message = (
                f"{self._root}: not used, because {reason}; the data is prepared for this command "
                f"only. To keep prepared data, remove the folder (rm -r {typeable(self._root)}) "
                "or choose another output_dir"
            )
            self._emit(Notice(message, is_warning=True))
            self._root, self._is_kept = access.temporary_directory(), False

    @contextmanager
    def _locked(self, kind: str, key: Key, variant: Key) -> Iterator[Path]:
        """Hold the lock of a folder; if the block raises, nothing is left behind."""
        missing = [above for above in (self._root, *self._root.parents) if not above.exists()]
        with disk_errors(self._root):
            self._prepare_root()
            folder = self._root / _name(kind, key, variant)
            lock = FileLock(_lock_of(folder))
            try:
                with access.masked(0o700):
                    lock.acquire(timeout=0)
            except Timeout:
                self._emit(
                    Notice("another convo process is preparing the same data; waiting for it")
                )
                lock.acquire()
        try:
            with access.masked(0o700):
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
            entries = self._root.iterdir()
            found = {path: match for path in entries if (match := _OURS.fullmatch(path.name))}
            folders = [path for path, match in found.items() if not match["aside"]]
            folders.sort(key=lambda path: path.lstat().st_mtime, reverse=True)
            unfinished = [path for path in folders if found[path]["unfinished"]]
            replies = [path for path in folders if path.name.startswith("replies-")]
            others = [path for path in folders if path not in (*replies, *unfinished)]
            kept = {*replies[:_KEEP], *others[:_KEEP], *unfinished[:_KEEP_UNFINISHED]}
            for doomed in found.keys() - kept:
                folder = self._root / found[doomed]["folder"]
                lock = FileLock(_lock_of(folder))
                with suppress(Timeout), lock.acquire(timeout=0):
                    delete(doomed)
                    if not folder.exists():
                        Path(lock.lock_file).unlink()


def _fill(make: Make, key: Key, variant: Key, aside: Path) -> Seals:
    seals = make(aside)
    (aside / _KEY_FILE).write_bytes(_text({"key": key, "variant": variant}))
    return seals or {}


def _name(kind: str, key: Key, variant: Key) -> str:
    hashes = (hashlib.sha256(_text(part)).hexdigest()[:16] for part in (key, variant))
    return "-".join([kind, *hashes])


def _text(value: Key) -> bytes:
    return json.dumps(value, sort_keys=True, indent=1).encode()


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")
