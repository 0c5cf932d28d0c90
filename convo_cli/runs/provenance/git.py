"""The checked-out commit of a working folder, read from its files.

git itself is never started, because the configuration of a repository can make it run programs.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from convo_cli.storage.files import read_file

_MAX_SMALL = 4096  # bytes of HEAD, a ref, or a file that names a folder
_MAX_PACKED = 16 * 2**20  # bytes of packed-refs: some 200,000 refs
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_REF = re.compile(r"refs(?:/[^/\0-\x20\x7f~^:?*\[\\]+)+")


class GitState(BaseModel):
    """The commit that was checked out in the working folder of `convo train`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    commit: str
    is_dirty: bool | None = None
    """True if files had changed since that commit; only earlier versions of convo wrote it."""

    @model_serializer(mode="wrap")
    def _without_none(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in serialize(self).items() if value is not None}


def read_git(folder: Path) -> GitState | None:
    """Return the commit of the repository that holds the folder; None if none can be read.

    Refs may be loose or packed, and the folder may be a worktree or a submodule. Refs in a reftable
    are not read.
    """
    try:
        inside = folder.resolve(strict=True)
        places = (parent / ".git" for parent in (inside, *inside.parents))
        git = next((place for place in places if os.path.lexists(place)), None)
        commit = None if git is None else _commit_of(git)
    except (OSError, ValueError, RuntimeError):  # RuntimeError: a link cycle before Python 3.13
        return None
    return None if commit is None else GitState(commit=commit)


def _commit_of(git: Path) -> str | None:
    if not git.is_dir():
        git = _named_folder(git, "gitdir: ")
    common = git
    if os.path.lexists(git / "commondir"):  # a worktree has its own HEAD and shares the branches
        common = _named_folder(git / "commondir")
    head = _read(git / "HEAD")
    name = head.removeprefix("ref: ")
    if name == head:
        return _as_commit(head)
    if not _REF.fullmatch(name) or not {".", ".."}.isdisjoint(name.split("/")):
        return None
    if os.path.lexists(common / name):
        return _as_commit(_read(common / name))
    packed = _read(common / "packed-refs", _MAX_PACKED).split("\n")
    return next(
        (_as_commit(line.removesuffix(f" {name}")) for line in packed if line.endswith(f" {name}")),
        None,
    )


def _named_folder(file: Path, key: str = "") -> Path:
    """Return the folder that a file names, relative to the file's folder."""
    text = _read(file)
    folder = text.removeprefix(key)
    is_on_network = folder.startswith(("//", "\\\\"))  # on Windows
    if not text.startswith(key) or is_on_network:
        raise ValueError("not a folder of this machine")
    return file.parent / folder


def _as_commit(text: str) -> str | None:
    return text if _COMMIT.fullmatch(text) else None


def _read(path: Path, limit: int = _MAX_SMALL) -> str:
    return read_file(path, limit).decode().removesuffix("\n")
