"""Special files, for tests of code that reads and writes files."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest


def _make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        before = Path.cwd()
        os.chdir(path.parent)  # the address of a socket is short
        try:
            server.bind(path.name)
        finally:
            os.chdir(before)


def _make_device(path: Path) -> None:
    """Create the same device as /dev/null."""
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.stat("/dev/null").st_rdev)
    except PermissionError:
        pytest.skip("only root can create devices")


SPECIAL_FILES: dict[str, Callable[[Path], None]] = {
    "a directory": Path.mkdir,
    "a pipe (FIFO)": os.mkfifo,
    "a socket": _make_socket,
    "a symbolic link": lambda path: path.symlink_to("/dev/null"),
    "a device": _make_device,
}
"""Functions that create each kind, by its name in `convo_cli.storage.files`."""
