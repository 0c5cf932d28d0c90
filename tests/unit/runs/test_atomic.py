"""Nothing is ever half written: not a file, not a directory, not the replacement of one by another."""

from __future__ import annotations

import json
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from convo_cli.errors import CheckpointError, DataError, DiskError
from convo_cli.runs.atomic import (
    MANIFEST_FILE,
    disk_errors,
    make_directory,
    publish_directory,
    read_manifest,
    remove_directory,
    remove_leftovers,
    verify_directory,
    verify_file,
    write_file,
)


def fill_with(**files: str):
    def fill(folder: Path) -> None:
        for name, content in files.items():
            (folder / name).write_text(content)

    return fill


@pytest.fixture
def published(tmp_path: Path) -> Path:
    path = tmp_path / "step-1"
    publish_directory(path, fill_with(weights="0123456789", state="{}"))
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    """A disk that is full: the kernel refuses to let any file grow beyond this."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


# A small file


def test_a_file_is_written_and_replaced(tmp_path):
    path = tmp_path / "last.json"
    write_file(path, "erst\n")
    write_file(path, "zweitens: é".encode())
    assert path.read_text(encoding="utf-8") == "zweitens: é"
    assert names(tmp_path) == ["last.json"]


def test_a_file_that_does_not_fit_on_the_disk_leaves_the_old_one(tmp_path):
    path = tmp_path / "last.json"
    write_file(path, "old")
    with files_of_at_most(1000), pytest.raises(DiskError, match=r"last\.json: File too large"):
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
            raise Exception("Error while serializing: I/O error: No space left on device (os error 28)")

    with pytest.raises(DiskError, match="No space left on device"):
        refuse()


def test_other_errors_pass_through(tmp_path):
    for error in (ValueError("no"), DataError("this (os error 2) is told already"), KeyboardInterrupt()):
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
    with files_of_at_most(1000), pytest.raises(DiskError, match=r"step-1: File too large") as caught:
        publish_directory(published, fill_with(weights="x" * 5000))
    assert caught.value.exit_code == 7
    assert "what was saved before is intact" in str(caught.value.hint)
    verify_directory(published)
    assert names(published.parent) == ["step-1"]


CRASHES = """
import os, shutil, sys
from pathlib import Path
from convo_cli.errors import CheckpointError
from convo_cli.runs.atomic import publish_directory, remove_directory, remove_leftovers, verify_directory

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
    """Killed before every call that touches the disk, in a process of its own; never neither, never half of one."""
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


def test_what_a_broken_replacement_took_away_comes_back_only_where_nothing_took_its_place(published):
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


def test_directories_are_made_with_all_above_them_and_never_twice(tmp_path):
    path = tmp_path / "runs" / "convo" / "checkpoints"
    make_directory(path)
    assert path.is_dir()
    with pytest.raises(DiskError, match="checkpoints: File exists"):
        make_directory(path)


@pytest.mark.parametrize(("mask", "file_mode", "folder_mode"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)])
def test_files_and_folders_have_the_mode_that_the_umask_gives(tmp_path, mask, file_mode, folder_mode):
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


# What is refused


def _flip(folder: Path) -> None:
    (folder / "weights").write_text("0123456780")


def _truncate(folder: Path) -> None:
    (folder / "weights").write_text("01234")


def _delete(folder: Path) -> None:
    (folder / "weights").unlink()


def _add(folder: Path) -> None:
    (folder / "pickle.bin").write_text("x")


def _swap_for_a_folder(folder: Path) -> None:
    size = (folder / "weights").stat().st_size
    (folder / "weights").unlink()
    (folder / "weights").mkdir()
    real = (folder / "weights").stat().st_size
    text = (folder / MANIFEST_FILE).read_text().replace(f'"size": {size},', f'"size": {real},')
    (folder / MANIFEST_FILE).write_text(text)


def _dangling_link(folder: Path) -> None:
    (folder / "weights").unlink()
    (folder / "weights").symlink_to(folder / "nowhere")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_flip, "weights: damaged \\(its content is not what was saved\\)"),
        (_truncate, "weights: damaged \\(5 bytes, saved with 10\\)"),
        (_delete, "weights: missing"),
        (_add, "pickle.bin: not part of the checkpoint as it was saved"),
        (_swap_for_a_folder, "weights: cannot be read \\(Is a directory\\)"),
        (_dangling_link, "weights: missing"),
    ],
    ids=["flipped", "truncated", "deleted", "extra file", "a folder instead", "dangling link"],
)
def test_damage_is_refused_by_the_name_of_the_file(published, damage, message):
    damage(published)
    with pytest.raises(CheckpointError, match=message):
        verify_directory(published)


def test_one_file_is_verified_alone(published):
    _flip(published)
    verify_file(published / "state")
    with pytest.raises(CheckpointError, match="weights: damaged"):
        verify_file(published / "weights")
    with pytest.raises(CheckpointError, match="other: not part of"):
        verify_file(published / "other")


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[]", "null", "{}", "[" * 100_000, "\xff", '{"files": []}', '{"files": {"weights": 3}}',
        '{"files": {"weights": {"size": 1}}}', '{"files": {"weights": {"size": "many", "sha256": ""}}}',
    ],
)  # fmt: skip
def test_a_manifest_that_is_none_is_named(published, content):
    (published / MANIFEST_FILE).write_text(content, encoding="latin-1")
    with pytest.raises(CheckpointError, match=r"MANIFEST\.json: not a readable manifest"):
        read_manifest(published)


def test_a_missing_manifest_says_that_the_checkpoint_is_not_whole(published):
    (published / MANIFEST_FILE).unlink()
    with pytest.raises(CheckpointError, match=r"MANIFEST\.json: not found, so the checkpoint is not whole"):
        verify_directory(published)


def test_a_manifest_cannot_send_the_reader_outside_its_folder(published):
    (published.parent / "secret").write_text("0123456789")
    manifest = json.loads((published / MANIFEST_FILE).read_text())
    manifest["files"]["../secret"] = manifest["files"]["weights"]
    (published / MANIFEST_FILE).write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="secret"):
        verify_directory(published)
