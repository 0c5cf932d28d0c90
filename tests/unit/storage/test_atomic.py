"""Files, directories and their replacements are never half written."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from convo_cli.errors import DataError, DiskError
from convo_cli.storage.atomic import (
    disk_errors,
    make_directory,
    publish_directory,
    remove_directory,
    remove_leftovers,
    require_space,
    set_aside,
    write_file,
    writing,
)
from convo_cli.storage.sealed import MANIFEST_FILE, verify_directory, verify_file
from tests.full_disk import file_size_limit
from tests.special_files import SPECIAL_FILES
from tests.umask import umask


def fill_with(**files: str):
    def fill(folder: Path) -> None:
        for name, content in files.items():
            (folder / name).write_text(content)

    return fill


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# A small file


def test_a_file_is_written_and_replaced(tmp_path):
    path = tmp_path / "last.json"
    write_file(path, "first\n")
    write_file(path, "second: é".encode())
    assert path.read_text(encoding="utf-8") == "second: é"
    assert names(tmp_path) == ["last.json"]


def test_a_file_that_does_not_fit_on_the_disk_leaves_the_old_one(tmp_path):
    path = tmp_path / "last.json"
    write_file(path, "old")
    with file_size_limit(1000), pytest.raises(DiskError, match=r"last\.json: File too large"):
        write_file(path, "x" * 5000)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["last.json"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DiskError, match=r"nowhere/last\.json: No such file or directory"):
        write_file(tmp_path / "nowhere" / "last.json", "x")


# Errors of the disk


def test_errors_that_rust_libraries_raise_for_the_disk_are_errors_of_the_disk(tmp_path):
    def refuse() -> None:
        with disk_errors(tmp_path):
            raise Exception(
                "Error while serializing: I/O error: No space left on device (os error 28)"
            )

    with pytest.raises(DiskError, match="No space left on device"):
        refuse()


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "your disk quota there is used up"),
        (errno.EROFS, "mount it read-write"),
        (errno.EACCES, "you need write permission there"),
        (errno.EPERM, "you need write permission there"),
        (errno.EIO, "see the kernel's log (dmesg)"),
        (errno.EFBIG, "choose another folder"),
    ],
    ids=lambda value: errno.errorcode.get(value, ""),
)
@pytest.mark.parametrize("is_rust", [False, True], ids=["", "from Rust"])
def test_the_hint_fits_what_the_disk_said(tmp_path, number, advice, is_rust):
    def refuse() -> None:
        with disk_errors(tmp_path):
            raise (
                RuntimeError(f"I/O error (os error {number})")
                if is_rust
                else OSError(number, os.strerror(number))
            )

    with pytest.raises(DiskError, match=os.strerror(number)) as caught:
        refuse()
    assert caught.value.exit_code == 7
    hint = str(caught.value.hint)
    assert advice in hint
    assert hint.endswith("what was saved before is intact")


@pytest.mark.parametrize(
    ("free", "is_enough"), [(5 * 2**20, True), (5 * 2**20 - 1, False), (0, False)]
)
def test_too_little_space_names_need_and_have_and_place(tmp_path, monkeypatch, free, is_enough):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: (2**40, 2**39, free))
    if is_enough:
        require_space(tmp_path / "step-1", 5 * 2**20)
        return
    message = rf"step-1: needs 5\.0 MiB, but only {free / 2**20:.1f} MiB is free in {tmp_path}"
    with pytest.raises(DiskError, match=message) as caught:
        require_space(tmp_path / "step-1", 5 * 2**20)
    assert "free some space" in str(caught.value.hint)
    assert names(tmp_path) == []


def test_a_file_system_that_does_not_tell_its_size_is_believed_to_have_room(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: (0, 0, 0))
    require_space(tmp_path / "step-1", 2**60)


def test_space_is_asked_of_the_real_file_system(tmp_path):
    require_space(tmp_path / "step-1", 1)
    with pytest.raises(DiskError, match="is free in"):
        require_space(tmp_path / "step-1", 2**70)


def test_other_errors_pass_through(tmp_path):
    for error in (
        ValueError("no"),
        DataError("this (os error 2) is already reported"),
        KeyboardInterrupt(),
    ):
        with pytest.raises(type(error)) as caught, disk_errors(tmp_path):
            raise error
        assert caught.value is error


# A directory


def test_a_published_directory_is_sealed_with_size_and_hash_of_every_file(published):
    manifest = json.loads((published / MANIFEST_FILE).read_text())
    assert manifest["format"] == 1
    assert manifest["files"]["weights"] == {
        "size": 10,
        "sha256": "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882",
    }
    assert names(published) == [MANIFEST_FILE, "state", "weights"]
    assert names(published.parent) == ["step-1"]
    verify_directory(published)
    verify_file(published / "weights")


def test_a_directory_is_replaced_as_a_whole(published):
    publish_directory(published, fill_with(weights="new"))
    assert names(published) == [MANIFEST_FILE, "weights"]
    assert (published / "weights").read_text() == "new"
    assert names(published.parent) == ["step-1"]


@pytest.mark.parametrize("error", [RuntimeError("model"), KeyboardInterrupt()])
def test_a_fill_that_fails_leaves_nothing_of_the_new_and_all_of_the_old(published, error):
    def fill(folder: Path) -> None:
        (folder / "weights").write_text("half")
        raise error

    for path in (published, published.with_name("step-2")):
        with pytest.raises(type(error)):
            publish_directory(path, fill)
    verify_directory(published)
    assert (published / "weights").read_text() == "0123456789"
    assert names(published.parent) == ["step-1"]


def test_a_full_disk_is_named_and_leaves_the_old(published):
    with file_size_limit(1000), pytest.raises(DiskError, match=r"step-1: File too large") as caught:
        publish_directory(published, fill_with(weights="x" * 5000))
    assert caught.value.exit_code == 7
    assert "what was saved before is intact" in str(caught.value.hint)
    verify_directory(published)
    assert names(published.parent) == ["step-1"]


def _name_of(descriptor: int) -> str:
    return Path(os.readlink(f"/proc/self/fd/{descriptor}")).name


@pytest.fixture
def calls(monkeypatch):
    """What is flushed and renamed, in order."""
    happened, fsync, rename, replace = [], os.fsync, os.rename, os.replace

    def recorded(word, function):
        def call(source, target, **folders):
            happened.append(f"{word} {Path(source).name.split('-')[0]} {Path(target).name}")
            function(source, target, **folders)

        return call

    def flush(descriptor):
        happened.append(f"flush {_name_of(descriptor)}")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "rename", recorded("rename", rename))
    monkeypatch.setattr(os, "replace", recorded("rename", replace))
    return happened


@pytest.mark.skipif(
    not Path("/proc/self/fd").is_dir(), reason="looks up names of open files in /proc"
)
def test_every_file_is_flushed_once_then_the_manifest_then_the_folder_then_its_name(
    tmp_path, calls
):
    publish_directory(tmp_path / "step-1", fill_with(a="1", b="2"))
    aside = f".tmp-step-1-{os.getpid()}"
    assert sorted(calls[:2]) == ["flush a", "flush b"]
    assert calls[2:] == [
        f"flush .tmp-{MANIFEST_FILE}-{os.getpid()}",
        f"rename .tmp {MANIFEST_FILE}",
        f"flush {aside}",
        "rename .tmp step-1",
        f"flush {tmp_path.name}",
    ]
    calls.clear()
    write_file(tmp_path / "last.json", "{}")
    assert calls == [
        f"flush .tmp-last.json-{os.getpid()}",
        "rename .tmp last.json",
        f"flush {tmp_path.name}",
    ]
    calls.clear()
    remove_directory(tmp_path / "step-1")
    assert calls == [f"rename step {aside}", f"flush {tmp_path.name}"]


@pytest.mark.skipif(
    not Path("/proc/self/fd").is_dir(), reason="looks up names of open files in /proc"
)
@pytest.mark.parametrize("bad", ["a", "b", f".tmp-{MANIFEST_FILE}"])
def test_a_flush_that_fails_is_not_tried_again_and_drops_the_whole_save(
    published, monkeypatch, bad
):
    """The kernel reports a lost page only once, so a second fsync of that file would succeed."""
    fsync, flushed = os.fsync, []

    def flush(descriptor):
        flushed.append(_name_of(descriptor))
        if flushed[-1].startswith(bad):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", flush)
    for path in (published, published.with_name("step-2")):
        flushed.clear()
        with pytest.raises(DiskError, match=f"{path.name}.*Input/output error"):
            publish_directory(path, fill_with(a="1", b="2"))
        assert sum(name.startswith(bad) for name in flushed) == 1
    assert names(published.parent) == ["step-1"]
    assert (published / "weights").read_text() == "0123456789"
    verify_directory(published)


CRASHES = """
import os, shutil, sys
from pathlib import Path
from convo_cli.errors import CheckpointError
from convo_cli.storage.atomic import publish_directory, remove_directory, remove_leftovers
from convo_cli.storage.sealed import verify_directory

root, action = Path(sys.argv[1]), sys.argv[2]
target = root / "step-1"
EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "shutil.rmtree"}

def put(text):
    publish_directory(target, lambda folder: [(folder / name).write_text(text) for name in "abc"])

def die_at(count):
    def hook(event, arguments):
        nonlocal count
        if event in EVENTS:
            count -= 1
            if count == 0:
                os._exit(9)
    sys.addaudithook(hook)

def crashed(count):
    child = os.fork()
    if child == 0:
        die_at(count)
        put("new") if action == "replace" else remove_directory(target)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9

count = 1
while True:
    shutil.rmtree(root, ignore_errors=True)
    put("old")
    was_killed = crashed(count)
    remove_leftovers(root)
    found = sorted(path.name for path in root.iterdir())
    if found:
        verify_directory(target)
    print(count, was_killed, found, (target / "a").read_text() if found else "gone")
    if not was_killed:
        break
    count += 1
"""


@pytest.mark.parametrize(("action", "after"), [("replace", "new"), ("remove", "gone")])
def test_a_crash_at_any_call_leaves_the_old_directory_or_the_new_one(tmp_path, action, after):
    """A separate process is killed before every call that touches the disk."""
    ran = subprocess.run(
        [sys.executable, "-c", CRASHES, str(tmp_path / "checkpoints"), action],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    outcomes = [line.rsplit(" ", 1)[1] for line in lines]
    assert set(outcomes) == {"old", after}
    assert outcomes == sorted(outcomes, reverse=True)
    assert all(line.split(" ", 2)[2].startswith(("['step-1']", "[] gone")) for line in lines)
    assert len(lines) > (15 if action == "replace" else 3)


def test_leftovers_of_others_go_and_everything_else_stays(published):
    folder = published.parent
    (folder / ".tmp-step-2-77").mkdir()
    (folder / ".tmp-step-2-77" / "weights").write_text("half")
    (folder / ".tmp-last.json-77").write_text("half")
    (folder / "notes.txt").write_text("mine")
    remove_leftovers(folder)
    assert names(folder) == ["notes.txt", "step-1"]
    verify_directory(published)


def test_what_a_broken_replacement_took_away_comes_back_only_where_nothing_took_its_place(
    published,
):
    folder = published.parent
    os.rename(published, folder / ".tmp-step-1.replaced")
    remove_leftovers(folder)
    verify_directory(published)
    publish_directory(folder / ".tmp-step-1.replaced", fill_with(weights="older"))
    remove_leftovers(folder)
    assert names(folder) == ["step-1"]
    assert (published / "weights").read_text() == "0123456789"


def test_removing_what_is_not_there_is_an_error_of_the_disk(tmp_path):
    with pytest.raises(DiskError, match="step-9: No such file"):
        remove_directory(tmp_path / "step-9")


@pytest.mark.parametrize("taken", [0, 2])
def test_what_is_set_aside_keeps_its_files_and_takes_a_name_that_is_free(published, taken):
    for number in range(taken):
        published.with_name(f"step-1.damaged{f'-{number + 1}' if number else ''}").mkdir()
    aside = set_aside(published)
    assert aside.name == ("step-1.damaged-3" if taken else "step-1.damaged")
    assert not published.exists()
    verify_directory(aside)


# Links that lead elsewhere


@pytest.fixture
def elsewhere(tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "precious").write_text("mine")
    yield folder
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"precious": "mine"}


@pytest.mark.parametrize(
    "name",
    [f".tmp-step-1-{os.getpid()}", "step-1", ".tmp-step-1.replaced"],
    ids=["aside", "published", "replaced"],
)
@pytest.mark.parametrize("is_dangling", [False, True], ids=["", "dangling"])
def test_a_link_in_the_way_of_a_save_is_replaced_and_never_followed(
    tmp_path, elsewhere, name, is_dangling
):
    home = tmp_path / "checkpoints"
    home.mkdir()
    if name.endswith(".replaced"):
        publish_directory(home / "step-1", fill_with(weights="old"))
    target = tmp_path / "nowhere" if is_dangling else elsewhere
    (home / name).symlink_to(target, target_is_directory=True)
    publish_directory(home / "step-1", fill_with(weights="new"))
    assert names(home) == ["step-1"]
    assert not (home / "step-1").is_symlink()
    assert (home / "step-1" / "weights").read_text() == "new"
    assert not (tmp_path / "nowhere").exists()


def test_a_link_where_a_file_is_written_aside_is_replaced_and_never_followed(tmp_path, elsewhere):
    home = tmp_path / "run"
    home.mkdir()
    (home / f".tmp-last.json-{os.getpid()}").symlink_to(elsewhere / "precious")
    write_file(home / "last.json", "{}")
    assert names(home) == ["last.json"]
    assert not (home / "last.json").is_symlink()


@pytest.mark.parametrize("kind", SPECIAL_FILES)
def test_only_a_regular_file_is_replaced(tmp_path, kind):
    path = tmp_path / "last.json"
    SPECIAL_FILES[kind](path)
    before = path.lstat()
    with pytest.raises(DiskError, match=rf"last\.json: not a regular file, but {re.escape(kind)}"):
        write_file(path, "{}")
    after = path.lstat()
    assert (before.st_mode, before.st_ino, before.st_rdev) == (
        after.st_mode,
        after.st_ino,
        after.st_rdev,
    )
    assert names(tmp_path) == ["last.json"]


def test_a_special_file_that_appears_while_writing_stays_too(tmp_path):
    path = tmp_path / "last.json"
    with pytest.raises(DiskError, match="a pipe"), writing(path):
        os.mkfifo(path)
    assert path.is_fifo()
    assert names(tmp_path) == ["last.json"]


def test_removing_a_link_or_a_left_over_link_removes_the_link_alone(tmp_path, elsewhere):
    home = tmp_path / "checkpoints"
    home.mkdir()
    for name in ("step-1", ".tmp-step-2-7", ".tmp-step-3.replaced", f".tmp-step-1-{os.getpid()}"):
        (home / name).symlink_to(elsewhere, target_is_directory=True)
    (home / ".tmp-last.json-7").symlink_to(elsewhere / "precious")
    (home / "step-3").mkdir()
    remove_directory(home / "step-1")
    remove_leftovers(home)
    assert names(home) == ["step-3"]


@pytest.mark.parametrize("is_shared", [False, True], ids=["", "shared"])
def test_a_folder_that_is_swapped_while_a_save_fills_it_leads_it_nowhere(
    tmp_path, elsewhere, is_shared
):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints").chmod(0o777 if is_shared else 0o755)

    def fill(folder):
        (run / "checkpoints").rename(tmp_path / "moved")
        (run / "checkpoints").symlink_to(elsewhere, target_is_directory=True)
        if is_shared:  # others could do this, so the path that a save fills stays with its folder
            (folder / "weights").write_text("0123456789")

    before = {path: path.read_text() for path in elsewhere.iterdir()}
    publish_directory(run / "checkpoints" / "step-1", fill, below=run)
    assert {path: path.read_text() for path in elsewhere.iterdir()} == before
    assert names(tmp_path / "moved") == ["step-1"]
    verify_directory(tmp_path / "moved" / "step-1")


def test_a_directory_that_takes_the_place_of_a_save_is_not_published_in_silence(tmp_path):
    aside = tmp_path / f".tmp-step-1-{os.getpid()}"

    def fill(folder):
        aside.rename(tmp_path / "moved")
        aside.mkdir()

    with pytest.raises(DiskError, match="step-1: another process created a directory there"):
        publish_directory(tmp_path / "step-1", fill)


@pytest.mark.parametrize(
    "act",
    [
        lambda run: publish_directory(run / "checkpoints/step-2", fill_with(a="1"), below=run),
        lambda run: remove_directory(run / "checkpoints/step-1", below=run),
        lambda run: set_aside(run / "checkpoints/step-1", below=run),
        lambda run: remove_leftovers(run / "checkpoints", below=run),
        lambda run: write_file(run / "checkpoints/name", "", below=run),
    ],
    ids=["publish", "remove", "set aside", "leftovers", "write"],
)
def test_nothing_is_changed_in_a_folder_that_a_link_in_the_run_leads_to(tmp_path, act):
    run, other = tmp_path / "run", tmp_path / "other"
    run.mkdir()
    publish_directory(other / "step-1", fill_with(weights="old"))
    (other / ".tmp-step-3-7").mkdir()
    (run / "checkpoints").symlink_to(other, target_is_directory=True)
    with pytest.raises(DiskError, match="checkpoints: not a directory, but a symbolic link"):
        act(run)
    assert names(other) == [".tmp-step-3-7", "step-1"]


# Making folders


def test_directories_are_made_with_all_above_them_and_never_twice(tmp_path):
    path = tmp_path / "runs" / "convo" / "checkpoints"
    make_directory(path)
    assert path.is_dir()
    with pytest.raises(DiskError, match="checkpoints: File exists"):
        make_directory(path)


@pytest.mark.parametrize(
    ("mask", "file_mode", "folder_mode"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)]
)
def test_files_and_folders_have_the_mode_that_the_umask_gives(
    tmp_path, mask, file_mode, folder_mode
):
    def fill(folder: Path) -> None:
        (folder / "weights").touch(mode=0o600)  # what safetensors does
        (folder / "script").touch(mode=0o777)

    with umask(mask):
        publish_directory(tmp_path / "step-1", fill)
        write_file(tmp_path / "last.json", "{}")
        assert os.umask(mask) == mask, "the umask is as it was"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert modes.pop("step-1") == folder_mode
    assert set(modes) == {"weights", "script", "last.json", MANIFEST_FILE}
    assert set(modes.values()) == {file_mode}
