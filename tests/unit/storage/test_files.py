"""Only regular files are opened, within a size limit, and never through a link."""

from __future__ import annotations

import os
import stat
import tracemalloc

import pytest

from convo_cli.storage.files import (
    MAX_READ_BYTES,
    UnsafeFileError,
    copy_file,
    only_regular,
    read_file,
    read_lines,
    require_regular,
)
from tests.special_files import SPECIAL_FILES

pytestmark = pytest.mark.usefixtures("never_waits")

MODES = ["rb", "r+b", "ab", "wb", "xb"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", SPECIAL_FILES)
def test_what_is_no_regular_file_is_not_opened(tmp_path, kind, mode):
    path = tmp_path / "name"
    SPECIAL_FILES[kind](path)
    with pytest.raises(UnsafeFileError, match="not a regular file, but ") as caught:
        open(path, mode, opener=only_regular).close()
    assert caught.value.kind == kind
    assert (caught.value.filename, caught.value.strerror.endswith(kind)) == (str(path), True)
    assert caught.value.hint
    with pytest.raises(UnsafeFileError, match="not a regular file, but "):
        require_regular(path)


@pytest.mark.parametrize("target", ["file", "nothing", "../name"])
@pytest.mark.parametrize("mode", MODES)
def test_no_link_is_followed_wherever_it_leads(tmp_path, target, mode):
    (tmp_path / "file").write_text("as it was")
    (tmp_path / "name").symlink_to(target)
    with pytest.raises(UnsafeFileError, match="a symbolic link"):
        open(tmp_path / "name", mode, opener=only_regular).close()
    assert (tmp_path / "file").read_text() == "as it was"
    assert sorted(os.listdir(tmp_path)) == ["file", "name"]


def test_a_regular_file_is_opened_as_by_open(tmp_path):
    path = tmp_path / "name"
    with open(path, "x", opener=only_regular) as file:
        file.write("one\n")
    with open(path, "a", opener=only_regular) as file:
        file.write("two\n")
    assert read_file(path) == b"one\ntwo\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~files_umask()
    with pytest.raises(FileExistsError):
        open(path, "x", opener=only_regular).close()
    for name in ("nowhere", "nowhere/name", "name/below"):
        with pytest.raises((FileNotFoundError, NotADirectoryError)):
            open(tmp_path / name, opener=only_regular).close()


def files_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("mode", ["r+b", "ab", "wb"])
def test_a_file_with_two_names_is_not_written_in_place(tmp_path, mode):
    (tmp_path / "precious").write_text("mine")
    os.link(tmp_path / "precious", tmp_path / "name")
    with pytest.raises(UnsafeFileError, match="has several names"):
        open(tmp_path / "name", mode, opener=only_regular).close()
    assert (tmp_path / "precious").read_text() == "mine"
    with pytest.raises(UnsafeFileError, match="has several names"):
        copy_file(tmp_path / "name", tmp_path / "copy")
    assert read_file(tmp_path / "name") == (tmp_path / "precious").read_bytes()


def test_no_more_is_read_than_may_be(tmp_path):
    path = tmp_path / "name"
    path.write_bytes(b"12345\n")
    assert read_file(path, 6) == b"12345\n"
    with pytest.raises(UnsafeFileError, match="larger than 5 bytes"):
        read_file(path, 5)
    with path.open("rb") as file:
        assert list(read_lines(file, 6)) == [b"12345\n"]
    with (
        path.open("rb") as file,
        pytest.raises(UnsafeFileError, match="a line of more than 5 bytes"),
    ):
        list(read_lines(file, 5))


def test_a_small_file_takes_no_more_memory_than_a_block(tmp_path):
    path = tmp_path / "small"
    path.write_bytes(b"x")
    tracemalloc.start()
    try:
        assert read_file(path) == b"x"
        assert tracemalloc.get_traced_memory()[1] < MAX_READ_BYTES / 16
    finally:
        tracemalloc.stop()


def test_a_file_without_end_is_left_after_the_limit(tmp_path):
    with (tmp_path / "name").open("wb") as file:
        file.truncate(2**42)
    with pytest.raises(UnsafeFileError, match="larger than"):
        read_file(tmp_path / "name", 2**20)
