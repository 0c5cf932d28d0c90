"""Every change of a file between its verification and its loading is found and named."""

from __future__ import annotations

import os

import pytest

from convo_cli.errors import ChangedError
from convo_cli.storage.snapshot import Snapshot


@pytest.fixture
def folder(tmp_path):
    for name in ("config.json", "model.safetensors", "train.log"):
        (tmp_path / name).write_text(name)
    return tmp_path


def write_and_set_back(file):
    status = file.stat()
    file.write_text("x" * status.st_size)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace_by_an_older_file(file):
    other = file.with_name("other")
    other.write_text("x" * file.stat().st_size)
    os.utime(other, ns=(0, file.stat().st_mtime_ns))
    other.rename(file)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (write_and_set_back, "changed"),
        (replace_by_an_older_file, "changed"),
        (lambda file: file.unlink(), "removed"),
        (lambda file: file.with_name("model.safetensors.index.json").write_text("{}"), "added"),
    ],
)
def test_every_change_of_a_folder_is_named(folder, change, what):
    before = Snapshot.of(folder)
    before.require_unchanged()
    change(folder / "model.safetensors")
    with pytest.raises(
        ChangedError, match=rf"^{folder}/model\.safetensors.*: {what} while {folder} was read$"
    ):
        before.require_unchanged()


@pytest.mark.parametrize(
    "change", [write_and_set_back, replace_by_an_older_file, lambda file: file.unlink()]
)
def test_every_change_of_a_file_is_named(folder, change):
    before = Snapshot.of(folder / "train.log")
    before.require_unchanged()
    change(folder / "train.log")
    with pytest.raises(ChangedError, match=r"train\.log: (changed|removed) while it was read$"):
        before.require_unchanged()


def test_a_log_that_grows_in_the_folder_changes_nothing(folder):
    before = Snapshot.of(folder)
    (folder / "train.log").write_text("more")
    before.require_unchanged()


def test_a_folder_that_is_gone_has_changed_and_what_was_never_there_has_not(folder):
    before = Snapshot.of(folder)
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(ChangedError, match=r"config\.json: removed"):
        before.require_unchanged()
    Snapshot.of(folder / "nothing").require_unchanged()
