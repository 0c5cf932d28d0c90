"""Files that another user can plant in a run directory, and the files outside that must stay."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

SECRET = "the-secret-of-another-file"
"""Content of files outside the run; no output of a command may contain it."""


def _link_to_a_copy(path: Path, outside: Path) -> None:
    shutil.move(path, outside / "copy")
    path.symlink_to(outside / "copy")


def _link_within(path: Path, outside: Path) -> None:
    shutil.move(path, path.with_name(f"{path.name}-moved"))
    path.symlink_to(f"{path.name}-moved")


def _hard_link(path: Path, outside: Path) -> None:
    _remove(path)
    os.link(outside / "secret", path)


def _huge(path: Path, outside: Path) -> None:
    _remove(path)
    with path.open("wb") as file:
        file.truncate(2**42)


def _in_its_place(make: Callable[[Path, Path], object]) -> Callable[[Path, Path], None]:
    def plant(path: Path, outside: Path) -> None:
        _remove(path)
        make(path, outside)

    return plant


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


LINKS: dict[str, Callable[[Path, Path], None]] = {
    "a link to a secret": _in_its_place(lambda path, outside: path.symlink_to(outside / "secret")),
    "a link to a folder": _in_its_place(lambda path, outside: path.symlink_to(outside / "folder")),
    "a link to nothing": _in_its_place(lambda path, outside: path.symlink_to(outside / "nothing")),
    "a link to what was there": _link_to_a_copy,
    "a link within the run": _link_within,
}
FILES: dict[str, Callable[[Path, Path], None]] = {
    "a pipe": _in_its_place(lambda path, outside: os.mkfifo(path)),
    "an endless device": _in_its_place(
        lambda path, outside: os.mknod(path, 0o666 | stat.S_IFCHR, os.stat("/dev/zero").st_rdev)
    ),
    "a folder": _in_its_place(lambda path, outside: path.mkdir()),
    "a hard link to a secret": _hard_link,
    "a huge file": _huge,
}
PLANTED = {**LINKS, **FILES}
"""Functions that plant each kind at a path; the second argument is `make_outside`'s folder."""


def make_outside(folder: Path) -> Path:
    """Create a folder with files of the user that belong to no run."""
    (folder / "folder").mkdir(parents=True)
    for name in ("secret", "folder/metrics.jsonl", "folder/config.json", "folder/loss.png"):
        (folder / name).write_text(f'{{"step": 1, "event": "{SECRET}"}}\n')
    (folder / "secret").chmod(0o600)
    return folder


def state_of(folder: Path) -> dict[str, tuple[object, ...]]:
    """Return mode, time and content of everything in a folder."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = (
            path.read_bytes() if stat.S_ISREG(status.st_mode) and status.st_size < 2**30 else b""
        )
        found[path.relative_to(folder).as_posix()] = (status.st_mode, status.st_mtime_ns, content)
    return found


def holders_of_the_secret(folder: Path, outside: Path) -> list[Path]:
    """Return the other files that hold the secret."""
    status = (outside / "secret").stat()
    return [
        path
        for path in folder.rglob("*")
        if stat.S_ISREG((one := path.lstat()).st_mode)
        and one.st_size < 2**30
        and not os.path.samestat(one, status)
        and SECRET.encode() in path.read_bytes()
    ]
