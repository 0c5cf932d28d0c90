"""Files that another person may have put there: what is refused, and what a held folder protects."""

from __future__ import annotations

import os
import signal
import stat

import pytest

from convo_cli import files
from convo_cli.files import (
    UnsafeFileError,
    copy_file,
    link_of_another_user,
    only_regular,
    opened,
    read_file,
    read_lines,
    require_regular,
)
from tests.special_files import SPECIAL_FILES

MODES = ["rb", "r+b", "ab", "wb", "xb"]


@pytest.fixture(autouse=True)
def _ends():
    """An open that waits for the other end of a pipe fails the test."""
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits"))
    signal.alarm(20)
    yield
    signal.alarm(0)


@pytest.fixture(params=[True, False], ids=["held folders", "paths alone"])
def _both_systems(request, monkeypatch):
    """As on Linux, and as on a system without directory descriptors."""
    monkeypatch.setattr(files, "_HAS_FOLDERS", request.param)


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
    with pytest.raises(UnsafeFileError, match="has other names too"):
        open(tmp_path / "name", mode, opener=only_regular).close()
    assert (tmp_path / "precious").read_text() == "mine"
    with pytest.raises(UnsafeFileError, match="has other names too"):
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
    with path.open("rb") as file, pytest.raises(UnsafeFileError, match="a line of more than 5 bytes"):
        list(read_lines(file, 5))


def test_a_file_without_end_is_left_after_the_limit(tmp_path):
    with (tmp_path / "name").open("wb") as file:
        file.truncate(2**42)
    with pytest.raises(UnsafeFileError, match="larger than"):
        read_file(tmp_path / "name", 2**20)


@pytest.mark.usefixtures("_both_systems")
@pytest.mark.parametrize("depth", [0, 1], ids=["folder", "folder in a folder"])
@pytest.mark.parametrize("is_dangling", [False, True])
def test_no_folder_below_the_named_one_is_a_link(tmp_path, depth, is_dangling):
    parts = ["one", "two"]
    (tmp_path / "run").joinpath(*parts).mkdir(parents=True)
    link = (tmp_path / "run").joinpath(*parts[: depth + 1])
    link.rename(tmp_path / "elsewhere")
    link.symlink_to(tmp_path / ("nothing" if is_dangling else "elsewhere"))
    with (
        pytest.raises(UnsafeFileError, match="not a directory, but a symbolic link") as caught,
        opened(tmp_path / "run/one/two", below=tmp_path / "run"),
    ):
        pass
    assert caught.value.filename == str(link)


@pytest.mark.usefixtures("_both_systems")
def test_the_named_folder_itself_may_be_a_link(tmp_path):
    (tmp_path / "real/one").mkdir(parents=True)
    (tmp_path / "run").symlink_to("real")
    for path, below in (("run", None), ("run/one", None), ("run/one", "run")):
        with opened(tmp_path / path, below=None if below is None else tmp_path / below) as folder:
            with folder.open("name", "xb") as file:
                file.write(b"content")
            assert "name" in folder.names()
            folder.rename("name", "other")
            folder.replace("other", "name")
            folder.sync()
            folder.delete("name")
            folder.make("inner")
            folder.delete("inner")
            folder.delete("inner")


@pytest.mark.usefixtures("_both_systems")
@pytest.mark.parametrize("kind", SPECIAL_FILES)
def test_a_held_folder_opens_regular_files_alone(tmp_path, kind):
    SPECIAL_FILES[kind](tmp_path / "name")
    with opened(tmp_path) as folder:
        with pytest.raises(UnsafeFileError) as caught:
            folder.open("name", "rb")
        assert caught.value.filename == str(tmp_path / "name")
        with pytest.raises(UnsafeFileError, match="not a regular file"):
            folder.require_regular("name")
        folder.delete("name")
        assert folder.names() == []


def test_what_is_done_in_a_held_folder_stays_in_it(tmp_path):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    for path in (run / "plots", elsewhere):
        path.mkdir(parents=True)
        (path / "name").write_text("as it was")
    with opened(run / "plots", below=run) as plots:
        (run / "plots").rename(tmp_path / "moved")
        (run / "plots").symlink_to(elsewhere)
        with plots.open("new", "xb") as file:
            file.write(b"content")
        plots.make("folder")
        plots.rename("name", "other")
        plots.delete("folder")
        assert plots.is_at(plots, "other") is False
    assert sorted(os.listdir(tmp_path / "moved")) == ["new", "other"]
    assert sorted(os.listdir(elsewhere)) == ["name"]


def test_a_folder_that_others_may_rename_has_a_path_that_stays_with_it(tmp_path):
    home = tmp_path / "shared"
    for mode, is_pinned in ((0o755, False), (0o777, True), (0o775, True), (0o1777, False)):
        (home / "new").mkdir(parents=True)
        home.chmod(mode)
        with opened(home) as folder, folder.inside("new") as new:
            path = new.pinned
            assert (path != new.path) is (is_pinned and os.path.isdir("/proc/self/fd"))
            if is_pinned:
                (home / "new").rename(home / "moved")
                (home / "new").symlink_to(tmp_path)
            (path / "name").write_text("content")
        assert os.listdir(home / ("moved" if is_pinned else "new")) == ["name"]
        assert not (tmp_path / "name").exists()
        for name in ("new", "moved"):
            with opened(home) as folder:
                folder.delete(name)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="gives a link to another user")
def test_a_link_that_another_user_planted_is_named(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "link").symlink_to(tmp_path)
    os.chown(shared / "link", 65534, 65534, follow_symlinks=False)
    for mode in (0o777, 0o1777, 0o775):
        shared.chmod(mode)
        assert link_of_another_user(shared / "link" / "runs" / "new") == shared / "link"
    shared.chmod(0o755)
    assert link_of_another_user(shared / "link" / "runs") is None, "nobody else writes there"
    shared.chmod(0o777)
    os.chown(shared, 65534, 65534)
    assert link_of_another_user(shared / "link" / "runs") is None, "the folder is that user's own"
    os.chown(shared / "link", 0, 0, follow_symlinks=False)
    assert link_of_another_user(shared / "link" / "runs") is None, "the link is mine"
