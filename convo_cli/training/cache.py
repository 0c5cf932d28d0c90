"""Work that is done once for equal inputs: folders named by what went into them, whole or not there at all.

A folder is made under a lock of its own, so that of two processes the second waits and then reads what the first one
made. A killed process leaves at most a hidden folder that the next one removes. Every file is verified before it is
read, and a folder that does not verify is made again.
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
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from convo_cli.errors import ChangedError, CheckpointError
from convo_cli.events import Notice, Report
from convo_cli.runs.atomic import disk_errors, publish_directory, verify_directory
from convo_cli.runs.snapshot import Snapshot

T = TypeVar("T")

NAME = ".convo-cache"
"""The cache's folder inside output_dir: what is deleted with the runs is deleted with it."""

_KEEP = 8
"""Folders kept, the last used first; a run uses three at most."""
_KEY_FILE = "key.json"
_OURS = re.compile(r"(?P<aside>\.tmp-)?(?P<folder>(?:tokens|refused|tokenizer)-[0-9a-f]{16}-[0-9a-f]{16})(?(aside)-.*)")
_LOCK = ".lock"


class Cache:
    """A folder of such folders, inside ``home`` where one may write there, else one that goes with the process."""

    def __init__(self, home: Path | None, report: Report) -> None:
        self._report = report
        if home is not None and _is_writable(home / NAME):
            self._root = home / NAME
        else:
            self._root = Path(tempfile.mkdtemp(prefix="convo-"))
            atexit.register(shutil.rmtree, self._root, ignore_errors=True)

    def get(
        self,
        kind: str,
        key: Mapping[str, Any],
        make: Callable[[Path], None],
        open_: Callable[[Path], T],
        variant: Mapping[str, Any] | None = None,
    ) -> tuple[T, bool]:
        """What ``open_`` reads from the folder of this kind, key and variant, and whether it was there before.

        ``make`` fills an empty folder where there is none. Whatever it raises leaves nothing behind.
        """
        folder = self._folder(kind, key, variant or {})
        with self._locked(folder):
            verified = self._verified(folder)
            if verified is None:
                publish_directory(folder, partial(_fill, make, key, variant or {}))
            os.utime(folder)
            opened = open_(folder)
            if verified is not None:
                verified.require_unchanged()
        self._prune()
        return opened, verified is not None

    def keep(self, kind: str, key: Mapping[str, Any], variant: Mapping[str, Any], made: Path) -> None:
        """Move the files of a folder that ``make`` has filled and then refused to where `related` finds them."""

        def move(aside: Path) -> None:
            for file in made.iterdir():
                os.replace(file, aside / file.name)

        folder = self._folder(kind, key, variant)
        with self._locked(folder):
            publish_directory(folder, partial(_fill, move, key, variant))

    def related(
        self, kinds: Sequence[str], key: Mapping[str, Any], open_: Callable[[Path], T]
    ) -> list[tuple[Mapping[str, Any], T]]:
        """The variants of this key that are there, of any of the kinds, and what ``open_`` reads from their folders."""
        found = []
        for kind in kinds:
            family = self._folder(kind, key, {}).name.rpartition("-")[0]
            for folder in sorted(self._root.glob(f"{family}-*[0-9a-f]")):
                # A locked folder is being filled, perhaps by this process; a damaged one is useless.
                with suppress(Timeout, CheckpointError, ChangedError), FileLock(_lock_of(folder)).acquire(timeout=0):
                    verified = verify_directory(folder)
                    opened = json.loads((folder / _KEY_FILE).read_bytes())["variant"], open_(folder)
                    verified.require_unchanged()
                    found.append(opened)
        return found

    def _folder(self, kind: str, key: Mapping[str, Any], variant: Mapping[str, Any]) -> Path:
        return self._root / "-".join([kind, *(hashlib.sha256(_text(part)).hexdigest()[:16] for part in (key, variant))])

    def _verified(self, folder: Path) -> Snapshot | None:
        """The folder's files as they were before they were verified; None where it has to be made."""
        if not folder.exists():
            return None
        try:
            return verify_directory(folder)
        except CheckpointError as error:
            self._report(Notice(f"{error}; it is created again", is_warning=True))
            return None

    @contextmanager
    def _locked(self, folder: Path) -> Iterator[None]:
        """Hold the folder's lock; where nothing came of it, nothing stays behind."""
        missing = [above for above in (self._root, *self._root.parents) if not above.exists()]
        lock = FileLock(_lock_of(folder))
        with disk_errors(folder):
            self._root.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                self._report(Notice("another convo prepares the same data; waiting for it"))
                lock.acquire()
        try:
            yield
        except BaseException:
            with suppress(OSError):  # not empty: another process uses it
                Path(lock.lock_file).unlink()
                for above in missing:
                    above.rmdir()
            raise
        finally:
            lock.release()

    def _prune(self) -> None:
        """Remove the folders not used for longest and what killed processes left, but nothing that one is at."""
        with suppress(OSError):  # another process prunes at the same time; the next run removes the rest
            ours = [(path, match) for path in self._root.iterdir() if (match := _OURS.fullmatch(path.name))]
            folders = [path for path, match in ours if not match["aside"]]
            folders.sort(key=lambda path: path.stat().st_mtime, reverse=True)
            for doomed in [*(path for path, match in ours if match["aside"]), *folders[_KEEP:]]:
                home = _OURS.fullmatch(doomed.name)
                assert home is not None, "it is one of ours"
                lock = FileLock(self._root / f"{home['folder']}{_LOCK}")
                with suppress(Timeout), lock.acquire(timeout=0):
                    shutil.rmtree(doomed)
                    if doomed in folders:
                        Path(lock.lock_file).unlink()


def _fill(make: Callable[[Path], None], key: Mapping[str, Any], variant: Mapping[str, Any], aside: Path) -> None:
    make(aside)
    (aside / _KEY_FILE).write_bytes(_text({"key": key, "variant": variant}))


def _text(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, indent=1).encode()


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}{_LOCK}")


def _is_writable(folder: Path) -> bool:
    above = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return above.is_dir() and os.access(above, os.W_OK | os.X_OK)
