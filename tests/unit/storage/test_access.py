"""Owners and modes: which files are trusted, and who may read files derived from others."""

from __future__ import annotations

import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convo_cli.storage.access import (
    derived_mode,
    find_untrusted,
    link_of_another_user,
    make_private,
    masked,
    only_own,
    restrict_directory,
)
from tests.umask import umask

pytestmark = pytest.mark.skipif(os.name != "posix", reason="owners and modes of POSIX")
needs_root = pytest.mark.skipif(
    os.name != "posix" or os.geteuid() != 0, reason="only root can give files away"
)
STRANGER = 65534


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def folder_status(*, owner, bits):
    return os.stat_result((stat.S_IFDIR | bits, 0, 0, 1, owner, 0, 0, 0, 0, 0))


# What other users may have written


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o022, 0o077])
def test_a_directory_made_private_is_this_users_alone_and_is_trusted(tmp_path, mask):
    with umask(mask):
        assert make_private(tmp_path / "cache") is None
        assert make_private(tmp_path / "cache") is None
    assert mode(tmp_path / "cache") == 0o700


@given(bits=st.integers(0, 0o777))
def test_a_directory_is_made_private_unless_others_may_write_to_it(tmp_path_factory, bits):
    folder = tmp_path_factory.mktemp("there") / "cache"
    folder.mkdir()
    folder.chmod(bits | 0o700)
    reason = make_private(folder)
    assert (reason is None) == (bits & 0o022 == 0)
    if reason is None:
        assert mode(folder) == 0o700
    else:
        assert f"other users may write to it (mode {bits | 0o700:04o})" in reason


def test_a_link_and_a_file_are_refused(tmp_path):
    (tmp_path / "mine").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    (tmp_path / "file").write_text("")
    assert make_private(tmp_path / "link") == "it is a symbolic link"
    assert make_private(tmp_path / "file") == "it is not a directory"
    assert mode(tmp_path / "mine") == 0o755, "nothing is changed through a link"


@needs_root
def test_another_users_directory_is_refused(tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    os.chown(folder, STRANGER, STRANGER)
    assert make_private(folder) == f"it belongs to another user (uid {STRANGER})"


def test_if_modes_or_owners_are_not_stored_a_new_directory_is_refused_and_removed(
    tmp_path, monkeypatch
):
    """As on vfat, and on network shares."""
    for shown in (
        folder_status(owner=os.geteuid(), bits=0o777),
        folder_status(owner=4321, bits=0o700),
    ):
        monkeypatch.setattr(
            "convo_cli.storage.access.os.fstat", lambda descriptor, shown=shown: shown
        )
        if shown.st_uid == 4321:
            monkeypatch.setattr("convo_cli.storage.access.os.geteuid", lambda: 1234)
        assert "its file system does not store owners and modes" in make_private(tmp_path / "cache")
        assert not (tmp_path / "cache").exists()


@needs_root
def test_a_link_that_another_user_planted_is_named(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "link").symlink_to(tmp_path)
    os.chown(shared / "link", STRANGER, STRANGER, follow_symlinks=False)
    for mode in (0o777, 0o1777, 0o775):
        shared.chmod(mode)
        assert link_of_another_user(shared / "link" / "runs" / "new") == shared / "link"
    shared.chmod(0o755)
    assert link_of_another_user(shared / "link" / "runs") is None, "no other user writes there"
    shared.chmod(0o777)
    os.chown(shared, STRANGER, STRANGER)
    assert link_of_another_user(shared / "link" / "runs") is None, "the folder is that user's own"
    os.chown(shared / "link", 0, 0, follow_symlinks=False)
    assert link_of_another_user(shared / "link" / "runs") is None, "the link is mine"


@pytest.mark.parametrize(
    "forge",
    [
        lambda folder: folder.chmod(0o775),
        lambda folder: (folder / "file").chmod(0o664),
        lambda folder: (folder / "file").chmod(0o602),
        lambda folder: (folder / "link").symlink_to(folder / "file"),
        lambda folder: os.mkfifo(folder / "pipe"),
        pytest.param(lambda folder: os.chown(folder / "file", STRANGER, 0), marks=needs_root),
        pytest.param(lambda folder: os.chown(folder, STRANGER, 0), marks=needs_root),
    ],
)
def test_a_folder_with_anything_that_others_may_have_written_is_untrusted(tmp_path, forge):
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(0o755)
    (folder / "file").write_text("text")
    (folder / "file").chmod(0o644)
    assert find_untrusted(folder) is None
    forge(folder)
    assert str(folder) in find_untrusted(folder)


def test_only_regular_files_that_are_no_links_are_opened_without_waiting_for_a_writer(tmp_path):
    (tmp_path / "file").write_text("text")
    with open(tmp_path / "file", opener=only_own) as file:
        assert file.read() == "text"
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(OSError, match=name):
            only_own(str(tmp_path / name), os.O_RDONLY)


@needs_root
def test_another_users_file_is_not_opened(tmp_path):
    (tmp_path / "file").write_text("text")
    os.chown(tmp_path / "file", STRANGER, 0)
    with pytest.raises(PermissionError, match="belongs to another user"):
        only_own(str(tmp_path / "file"), os.O_RDONLY)


# Who may read derived files


def place_with(tmp_path, bits, *, folder_bits=0o755):
    """Return a file in its own folder, and the place of something that is derived from it."""
    tmp_path.joinpath("data").mkdir(exist_ok=True)
    source = tmp_path / "data" / "file"
    source.write_text("text")
    source.chmod(bits)
    source.parent.chmod(folder_bits)
    return source, tmp_path / "runs" / "tiny"


@given(bits=st.integers(0, 0o777), folder_bits=st.integers(0, 0o777))
def test_a_derived_file_is_readable_only_where_the_source_is(tmp_path_factory, bits, folder_bits):
    source, place = place_with(
        tmp_path_factory.mktemp("x"), bits | 0o600, folder_bits=folder_bits | 0o700
    )
    allowed = derived_mode([source], place)
    assert allowed & 0o700 == 0o700
    group_reads = bool(bits & 0o040 and folder_bits & 0o010)
    others_read = group_reads and bool(bits & 0o004 and folder_bits & 0o001)
    assert bool(allowed & 0o070) == group_reads
    assert bool(allowed & 0o007) == others_read


def test_a_private_directory_around_both_source_and_place_does_not_count(tmp_path):
    source, place = place_with(tmp_path, 0o644)
    tmp_path.chmod(0o700)
    assert derived_mode([source], place) == 0o777
    source.parent.chmod(0o700)
    assert derived_mode([source], place) == 0o700
    assert derived_mode([source], source.parent / "runs") == 0o777, (
        "it is in the private directory as well"
    )


def test_the_most_private_source_decides_and_a_link_is_as_private_as_what_it_leads_to(tmp_path):
    source, place = place_with(tmp_path, 0o640)
    (tmp_path / "open").write_text("text")
    (tmp_path / "open").chmod(0o644)
    (tmp_path / "link").symlink_to(source)
    assert derived_mode([tmp_path / "open"], place) == 0o777
    assert derived_mode([tmp_path / "open", tmp_path / "link"], place) == 0o770
    assert derived_mode([tmp_path / "missing"], place) == 0o777


@needs_root
def test_the_group_of_the_source_is_not_the_group_of_what_is_derived(tmp_path):
    source, place = place_with(tmp_path, 0o640)
    os.chown(source, 0, 4321)
    assert derived_mode([source], place) == 0o700
    source.chmod(0o644)
    assert derived_mode([source], place) == 0o777


def test_a_directory_is_closed_and_never_opened(tmp_path):
    tmp_path.chmod(0o750)
    assert restrict_directory(tmp_path, 0o777)
    assert mode(tmp_path) == 0o750
    assert restrict_directory(tmp_path, 0o700)
    assert mode(tmp_path) == 0o700


def test_what_is_created_in_a_masked_block_has_no_other_bits_and_the_umask_comes_back(tmp_path):
    with umask(0o022):
        with masked(0o750):
            (tmp_path / "a").mkdir()
            (tmp_path / "b").write_text("")
        (tmp_path / "c").mkdir()
    assert [mode(tmp_path / name) for name in "abc"] == [0o750, 0o640, 0o755]
