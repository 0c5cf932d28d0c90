"""The commit of a working folder is read as git reports it, and nothing of a repository is run."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from convo_cli.runs.provenance.git import read_git

COMMIT = "0123456789abcdef0123456789abcdef01234567"
needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is the reference")


def git(folder, *arguments):
    """What git answers, with no configuration but the repository's."""
    identity = (
        "-c",
        "user.name=me",
        "-c",
        "user.email=me@example.org",
        "-c",
        "protocol.file.allow=always",
    )
    env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(
        ["git", *identity, *arguments],
        cwd=folder,
        env=env,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init")
    git(folder, "commit", "--allow-empty", "-m", "first")
    return folder


def nothing(folder):
    return folder


def packed(folder):
    for branch in ("branch", "x-branch", "main-2", "zz"):
        git(folder, "checkout", "-b", branch)
        git(folder, "commit", "--allow-empty", "-m", branch)
    git(folder, "checkout", "branch")
    git(folder, "pack-refs", "--all")
    return folder


def packed_and_loose(folder):
    git(packed(folder), "commit", "--allow-empty", "-m", "newer than the packed one")
    return folder


def annotated(folder):
    git(folder, "tag", "-a", "-m", "a tag has an object of its own", "v1")
    git(folder, "pack-refs", "--all")
    return folder


def detached(folder):
    git(folder, "checkout", "--detach")
    git(folder, "commit", "--allow-empty", "-m", "second")
    return folder


def nested_branch(folder):
    git(folder, "checkout", "-b", "feature/some.thing/ünï-3")
    git(folder, "commit", "--allow-empty", "-m", "second")
    return folder


def subfolder(folder):
    (folder / "data/deep").mkdir(parents=True)
    return folder / "data/deep"


def worktree(folder):
    git(folder, "worktree", "add", "-b", "side", "../side")
    git(folder.parent / "side", "commit", "--allow-empty", "-m", "second")
    return folder.parent / "side"


def detached_worktree(folder):
    git(folder, "worktree", "add", "--detach", "../side")
    git(folder.parent / "side", "commit", "--allow-empty", "-m", "second")
    return folder.parent / "side"


def packed_worktree(folder):
    side = worktree(folder)
    git(folder, "pack-refs", "--all")
    return side


def submodule(folder):
    shutil.copytree(folder, folder.parent / "other")
    git(folder.parent / "other", "commit", "--allow-empty", "-m", "other")
    git(folder, "submodule", "add", "../other", "inner")
    return folder / "inner"


def sha256(folder):
    shutil.rmtree(folder / ".git")
    git(folder, "init", "--object-format=sha256")
    git(folder, "commit", "--allow-empty", "-m", "first")
    return folder


@needs_git
@pytest.mark.parametrize(
    "make",
    [
        *(
            nothing,
            packed,
            packed_and_loose,
            annotated,
            detached,
            nested_branch,
            subfolder,
            worktree,
            detached_worktree,
        ),
        *(packed_worktree, submodule, sha256),
    ],
)
def test_the_commit_is_what_git_says(repository, make):
    folder = make(repository)
    assert read_git(folder).commit == git(folder, "rev-parse", "HEAD")


@needs_git
def test_a_branch_without_a_commit_has_none(tmp_path):
    git(tmp_path, "init")
    assert read_git(tmp_path) is None


def test_there_is_none_without_a_repository(tmp_path):
    assert read_git(tmp_path / "nowhere") is None
    # The first .git upwards decides, so that no folder above the test matters.
    (tmp_path / ".git").mkdir()
    assert read_git(tmp_path) is None


# By hand: git need not be there


@pytest.fixture
def plain(tmp_path):
    """The files of a repository, as few as name a commit."""
    folder = tmp_path / "plain"
    (folder / ".git/refs/heads").mkdir(parents=True)
    (folder / ".git/HEAD").write_bytes(b"ref: refs/heads/main\n")
    (folder / ".git/refs/heads/main").write_bytes(f"{COMMIT}\n".encode())
    (folder / ".git/secret").write_bytes(f"{COMMIT}\n".encode())
    return folder


def test_files_alone_name_a_commit(plain):
    assert read_git(plain).commit == COMMIT


@pytest.mark.parametrize(
    "head",
    [
        *(
            "ref: refs/heads/../../secret\n",
            "ref: secret\n",
            "ref: refs/heads/./main\n",
            "ref: /etc/hostname\n",
        ),
        *(
            "ref: refs//heads/main\n",
            "ref: refs/heads/\x1b[2Jmain\n",
            "ref: \n",
            "",
            "\0",
            f"{COMMIT[1:]}\n",
        ),
        *(
            f"{COMMIT}\n{COMMIT}\n",
            f"{COMMIT} \n",
            COMMIT.replace("a", "A") + "\n",
            COMMIT + "\n" * 9000,
        ),
        "ref: refs/heads/.invalid\n",  # as a reftable has it
    ],
)
def test_a_head_that_git_does_not_write_names_nothing(plain, head):
    (plain / ".git/HEAD").write_bytes(head.encode())
    assert read_git(plain) is None


def test_a_ref_that_holds_no_commit_names_nothing_of_what_it_holds(plain):
    (plain / ".git/refs/heads/main").write_text("password\n")
    assert read_git(plain) is None


@pytest.mark.parametrize(
    "key", ["", "gitdir:", "gitdir: //host/share/", "gitdir: \\\\host\\share\\", "elsewhere: "]
)
def test_a_file_that_names_no_folder_of_this_machine_is_not_followed(tmp_path, plain, key):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/.git").write_text(f"{key}{plain}/.git\n")
    assert read_git(tmp_path / "other") is None


@pytest.mark.skipif(os.name != "posix", reason="links, pipes and devices")
@pytest.mark.parametrize("name", ["HEAD", "refs/heads/main", "packed-refs", "commondir", "."])
@pytest.mark.parametrize("kind", ["link", "pipe", "device", "directory"])
def test_nothing_but_regular_files_is_opened(plain, name, kind):
    place = (plain / ".git" / name).absolute()
    if name == ".":
        shutil.rmtree(place)
    elif name == "packed-refs":
        (plain / ".git/refs/heads/main").unlink()
    else:
        place.unlink(missing_ok=True)
    if kind == "link":
        target = plain / "elsewhere"
        target.write_bytes(
            f"{COMMIT}\n".encode()
            if name != "packed-refs"
            else f"{COMMIT} refs/heads/main\n".encode()
        )
        place.symlink_to(target)
    elif kind == "pipe":
        os.mkfifo(place)
    elif kind == "device":
        place.symlink_to("/dev/zero")
    else:
        place.mkdir()
    started = time.process_time()
    assert read_git(plain) is None
    assert time.process_time() - started < 1


def test_packed_refs_are_read_up_to_a_size(plain, monkeypatch):
    (plain / ".git/refs/heads/main").unlink()
    (plain / ".git/packed-refs").write_bytes(
        f"{COMMIT[::-1]} refs/heads/other\n{COMMIT} refs/heads/main\n".encode()
    )
    assert read_git(plain).commit == COMMIT
    monkeypatch.setattr("convo_cli.runs.provenance.git._MAX_PACKED", 50)
    assert read_git(plain) is None


def test_links_in_a_circle_end(tmp_path):
    circle = Path(tmp_path / "circle")
    try:
        circle.symlink_to(circle)
    except OSError:
        pytest.skip("links")
    assert read_git(circle) is None
