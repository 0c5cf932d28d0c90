"""A sealed directory is read only if every file exists and is unchanged."""

from __future__ import annotations

import errno
import json
import re
from pathlib import Path

import pytest

from convo_cli.errors import CheckpointError, DiskError
from convo_cli.storage.atomic import publish_directory
from convo_cli.storage.sealed import (
    MANIFEST_FILE,
    has_all_files,
    read_manifest,
    verify_directory,
    verify_file,
)
from tests.special_files import SPECIAL_FILES


def test_a_folder_with_more_files_than_threads_is_sealed_whole(tmp_path):
    def fill(folder):
        for number in range(40):
            (folder / str(number)).write_text("x" * number)

    publish_directory(tmp_path / "step-1", fill)
    verify_directory(tmp_path / "step-1")
    assert len(read_manifest(tmp_path / "step-1")) == 40


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
        (_truncate, "weights: damaged \\(5 bytes, but saved with 10\\)"),
        (_delete, "weights: missing"),
        (_add, "pickle.bin: not part of the checkpoint as it was saved"),
        (_swap_for_a_folder, r"weights: cannot be read \(not a regular file, but a directory\)"),
        (_dangling_link, r"weights: cannot be read \(not a regular file, but a symbolic link\)"),
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
        "", "{", "[]", "null", "{}", "[" * 100_000, "\xff", '{"files": []}', ('{"files": '
                                                                             '{"weights": 3}}'),
        '{"files": {"weights": {"size": 1}}}', ('{"files": {"weights": {"size": "many", "sha256": '
                                               '""}}}'),
    ],
)  # fmt: skip
def test_an_unreadable_manifest_is_named(published, content):
    (published / MANIFEST_FILE).write_text(content, encoding="latin-1")
    with pytest.raises(CheckpointError, match=r"MANIFEST\.json: not a readable manifest"):
        read_manifest(published)


@pytest.mark.parametrize("version", [2, "1", None])
def test_a_manifest_of_another_format_is_refused_with_both_numbers(published, version):
    manifest = json.loads((published / MANIFEST_FILE).read_text())
    (published / MANIFEST_FILE).write_text(json.dumps({**manifest, "format": version}))
    with pytest.raises(
        CheckpointError, match=f"format {json.dumps(version)}, but this convo reads"
    ):
        verify_directory(published)


def test_missing_permission_is_not_damage(published, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("convo_cli.storage.sealed.file_sha256", refuse)
    with pytest.raises(DiskError, match="state: Permission denied"):
        verify_directory(published)


@pytest.mark.parametrize(
    ("damage", "is_seen"), [(_flip, False), (_truncate, True), (_delete, True)]
)
def test_sizes_alone_tell_what_is_cut_or_gone(published, damage, is_seen):
    assert has_all_files(published)
    damage(published)
    assert has_all_files(published) is not is_seen


def test_without_a_manifest_nothing_is_known_to_be_there(published):
    (published / MANIFEST_FILE).unlink()
    assert not has_all_files(published)


def test_a_missing_manifest_says_that_the_checkpoint_is_not_whole(published):
    (published / MANIFEST_FILE).unlink()
    with pytest.raises(
        CheckpointError, match=r"MANIFEST\.json: missing, so the folder is incomplete"
    ):
        verify_directory(published)


@pytest.mark.parametrize("name", ["../other", "/etc/passwd", "a/b", "", "."])
def test_a_manifest_lists_only_files_beside_it(published, name):
    (published / MANIFEST_FILE).write_text(
        json.dumps({"format": 1, "files": {name: {"size": 1, "sha256": "a"}}})
    )
    with pytest.raises(CheckpointError, match=r"MANIFEST\.json: not a readable manifest"):
        read_manifest(published)
    assert not has_all_files(published)


@pytest.mark.parametrize("kind", SPECIAL_FILES)
@pytest.mark.parametrize("name", [MANIFEST_FILE, "weights"])
def test_what_is_no_regular_file_is_not_read_in_a_checkpoint(published, kind, name):
    (published / name).unlink()
    SPECIAL_FILES[kind](published / name)
    with pytest.raises(
        CheckpointError,
        match=rf"{name}: cannot be read \(not a regular file, but {re.escape(kind)}",
    ):
        verify_directory(published)
    assert not has_all_files(published)


def test_a_link_to_the_saved_file_is_refused_in_a_checkpoint_and_read_in_a_model_of_a_hub(
    published, tmp_path
):
    for name in ("weights", MANIFEST_FILE):
        (published / name).rename(tmp_path / f"blob-{name}")
        (published / name).symlink_to(tmp_path / f"blob-{name}")
        with pytest.raises(CheckpointError, match="a symbolic link"):
            verify_directory(published)
        verify_directory(published, may_hold_links=True)


def test_a_text_larger_than_any_is_refused_before_it_is_hashed(tmp_path, monkeypatch):
    publish_directory(
        tmp_path / "step-1", lambda folder: (folder / "tokenizer.json").write_text("1234")
    )
    monkeypatch.setattr("convo_cli.storage.sealed.MAX_TEXT_BYTES", 3)
    with pytest.raises(
        CheckpointError, match=r"tokenizer\.json: 4 bytes; a \.json file may have at most 3"
    ):
        verify_directory(tmp_path / "step-1")
