"""What is no regular file: made under a name, for tests of all that reads and writes files."""

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
    """The same device as /dev/null."""
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.stat("/dev/null").st_rdev)
    except PermissionError:
        pytest.skip("devices are made by root alone")


SPECIAL_FILES: dict[str, Callable[[Path], None]] = {
    "a directory": Path.mkdir,
    "a pipe (FIFO)": os.mkfifo,
    "a socket": _make_socket,
    "a symbolic link": lambda path: path.symlink_to("/dev/null"),
    "a device": _make_device,
}
"""How to make each kind, by the words of `convo_cli.storage.files`."""
