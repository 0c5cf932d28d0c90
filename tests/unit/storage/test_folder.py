"""A held folder opens and changes only its own entries, even if another one takes its name."""

from __future__ import annotations

import os

import pytest

from convo_cli.storage import folder as module
from convo_cli.storage.files import UnsafeFileError
from convo_cli.storage.folder import open_folder
from tests.special_files import SPECIAL_FILES

pytestmark = pytest.mark.usefixtures("never_waits")


@pytest.fixture(params=[True, False], ids=["held folders", "paths alone"])
def _both_systems(request, monkeypatch):
    """As on Linux, and as on a system without directory descriptors."""
    monkeypatch.setattr(module, "_HAS_DESCRIPTORS", request.param)


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
        open_folder(tmp_path / "run/one/two", below=tmp_path / "run"),
    ):
        pass
    assert caught.value.filename == str(link)


@pytest.mark.usefixtures("_both_systems")
def test_the_named_folder_itself_may_be_a_link(tmp_path):
    (tmp_path / "real/one").mkdir(parents=True)
    (tmp_path / "run").symlink_to("real")
    for path, below in (("run", None), ("run/one", None), ("run/one", "run")):
        with open_folder(
            tmp_path / path, below=None if below is None else tmp_path / below
        ) as folder:
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
    with open_folder(tmp_path) as folder:
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
    with open_folder(run / "plots", below=run) as plots:
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
        with open_folder(home) as folder, folder.inside("new") as new:
            path = new.pinned
            assert (path != new.path) is (is_pinned and os.path.isdir("/proc/self/fd"))
            if is_pinned:
                (home / "new").rename(home / "moved")
                (home / "new").symlink_to(tmp_path)
            (path / "name").write_text("content")
        assert os.listdir(home / ("moved" if is_pinned else "new")) == ["name"]
        assert not (tmp_path / "name").exists()
        for name in ("new", "moved"):
            with open_folder(home) as folder:
                folder.delete(name)
