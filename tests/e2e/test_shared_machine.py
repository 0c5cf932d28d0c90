"""Attacks in a shared folder: another user plants links, pipes and folders where this user's
commands read and write.

Nothing outside the shared folder changes, no content of the user's own files gets into it or on the
screen, and every command ends. Needs root, to act as both users.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import pytest

from tests.cases import quick_only
from tests.commands import EXECUTABLE, TINY, Result, environment, make_workplace, settings
from tests.forks import run_fork
from tests.planted import SECRET, make_outside, state_of

VICTIM, ATTACKER = 65533, 65534
SHARED = (0o777, 0o1777)
"""Modes of a folder that all write to; in the second, nobody removes what is another's."""
SECONDS = 120

pytestmark = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0,
    reason="acts as two users, for which it has to be root",
)


def own(path: Path, user: int) -> Path:
    """Give a path, and all below it, to a user."""
    for one in [path, *(path.rglob("*") if path.is_dir() and not path.is_symlink() else ())]:
        os.chown(one, user, user, follow_symlinks=False)
    return path


class Place:
    """The user's home, which no other user may open, and the folder that both share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.shared = folder / "shared"
        self.runs = self.shared / "runs"
        self.run = self.runs / "tiny"

    def convo(self, *arguments: object) -> Result:
        """Run a command as the user."""
        process = subprocess.run(
            [EXECUTABLE, *map(str, arguments)],
            cwd=self.home / "work",
            env=environment(
                HOME=str(self.home), OMP_NUM_THREADS="1", TMPDIR=str(self.folder / "tmp")
            ),
            user=VICTIM,
            group=VICTIM,
            extra_groups=[],
            input=b"hello\n",
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
        return Result(process.returncode, process.stdout.decode(), process.stderr.decode())

    def plant_link(self, path: Path, to: Path) -> None:
        self.clear(path)
        path.symlink_to(to)
        own(path, ATTACKER)

    def plant_pipe(self, path: Path) -> None:
        self.clear(path)
        os.mkfifo(path, 0o666)
        own(path, ATTACKER)

    def plant_folder(self, path: Path, **links: Path) -> None:
        """A folder of the attacker that the user may write to, with links in it."""
        self.clear(path)
        path.mkdir()
        path.chmod(0o777)
        for name, to in links.items():
            (path / name).symlink_to(to)
        own(path, ATTACKER)

    def clear(self, path: Path) -> None:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def trained() -> Iterator[Path]:
    """A place in which the user has trained a run, without an attack."""
    # pytest's own folders are root's alone.
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="convo-shared-"))
    try:
        folder.chmod(0o755)
        place = Place(folder)
        for path in (place.home / "work", folder / "tmp", place.runs):
            path.mkdir(parents=True)
        make_outside(place.home / "private")
        make_workplace(place.home / "work")
        config = TINY.replace("output_dir: runs", f"output_dir: {place.runs}")
        config = config.replace("steps: 6", "steps: 3")
        config = config.replace(", tensorboard: false, plots: false", "")
        (place.home / "work/config.yaml").write_text(config)
        place.home.chmod(0o700)
        home = environment(HOME=str(place.home), TMPDIR=str(folder / "tmp"))
        result = run_fork(place.home / "work", "train", "config.yaml", "-q", env=home)
        assert result.code == 0, result
        for path in (place.home, folder / "tmp", place.shared):
            own(path, VICTIM)
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def place(trained, mode):
    """That place with a folder that both users can write to; the attacker may change the run."""
    before = Path(f"{trained}-before")
    shutil.copytree(trained, before, symlinks=True, copy_function=shutil.copy2)
    place = Place(trained)
    for folder in (place.shared, place.runs):
        folder.chmod(mode)
    for path in [place.run, *place.run.rglob("*")]:
        path.chmod(0o777 if path.is_dir() else 0o666)
    yield place
    for name in ("home", "shared", "tmp"):
        shutil.rmtree(trained / name)
        shutil.move(before / name, trained / name)
        own(trained / name, VICTIM)
    shutil.rmtree(before)


MORE = settings("training.max_steps=4")
TRAIN = ["train", "config.yaml", *settings("name=new")]
RESUME = ["resume", "{run}", *MORE]
FORK = ["resume", "{run}", *MORE, *settings("name=fork")]
EXPORT = ["export", "{run}", "{shared}/exports/new"]
CHAT = ["chat", "{run}"]
RUN, BEGUN = "runs/tiny", "runs/.convo-new-new"
NEWEST = f"{RUN}/checkpoints/step-00000003"
Plant = Callable[[Place, Path], object]


def link(path: str, to: str) -> Plant:
    """Plant a link; ``path`` is below the shared folder, ``to`` below the user's private one."""
    return lambda place, private: place.plant_link(place.shared / path, private / to)


def pipe(path: str) -> Plant:
    return lambda place, private: place.plant_pipe(place.shared / path)


def folder(path: str, **links: str) -> Plant:
    return lambda place, private: place.plant_folder(
        place.shared / path, **{name: private / to for name, to in links.items()}
    )


ATTACKS: dict[str, tuple[list[Plant], list[str], int]] = {
    "nothing, and a run begins": ([], TRAIN, 0),
    "nothing, and the run continues": ([], RESUME, 0),
    "the place where a run begins is a link": ([link(BEGUN, "folder")], TRAIN, 5),
    "the place where a run begins is another user's": (
        [folder(BEGUN, checkpoints="folder", **{"config.yaml": "secret"})],
        TRAIN,
        5,
    ),
    "the place where a run begins is a pipe": ([pipe(BEGUN)], TRAIN, 5),
    "the run's place is a link to a folder": ([link("runs/new", "folder")], TRAIN, 5),
    "the run's place is a link to nothing": ([link("runs/new", "nothing")], TRAIN, 5),
    "the run's place is a pipe": ([pipe("runs/new")], TRAIN, 5),
    "output_dir is a link": ([link("runs", "folder")], TRAIN, 7),
    "the log is a link": ([link(f"{RUN}/metrics.jsonl", "secret")], RESUME, 7),
    "the samples are a link": ([link(f"{RUN}/samples.jsonl", "secret")], RESUME, 7),
    "the log is a pipe": ([pipe(f"{RUN}/metrics.jsonl")], RESUME, 7),
    "the log is a link, and the run forks": ([link(f"{RUN}/samples.jsonl", "secret")], FORK, 7),
    "an event file is a link, and the run forks": (
        [link(f"{RUN}/tensorboard/events.out.tfevents.1", "secret")],
        FORK,
        7,
    ),
    "the lock is a link": ([link(f"{RUN}/.lock", "secret")], RESUME, 7),
    "the lock is a pipe": ([pipe(f"{RUN}/.lock")], RESUME, 7),
    "the plots are elsewhere": ([link(f"{RUN}/plots", "folder")], RESUME, 5),
    "the events are elsewhere": ([link(f"{RUN}/tensorboard", "folder")], RESUME, 5),
    "the checkpoints are elsewhere": ([link(f"{RUN}/checkpoints", "folder")], RESUME, 5),
    "run.json is a link": ([link(f"{RUN}/run.json", "secret")], RESUME, 5),
    "config.yaml is a link": ([link(f"{RUN}/config.yaml", "secret")], RESUME, 5),
    "config.yaml is a pipe": ([pipe(f"{RUN}/config.yaml")], RESUME, 5),
    "a manifest is a pipe": ([pipe(f"{NEWEST}/MANIFEST.json")], CHAT, 0),
    "a checkpoint is a link": ([link(NEWEST, "folder")], EXPORT, 5),
    "weights are a link": ([link(f"{NEWEST}/model.safetensors", "secret")], EXPORT, 0),
    "the cache is a link": ([link("runs/.convo-cache", "folder")], TRAIN, 0),
    "the cache is a pipe": ([pipe("runs/.convo-cache")], TRAIN, 0),
    "the cache is another user's": (
        [lambda place, private: own(place.runs / ".convo-cache", ATTACKER)],
        TRAIN,
        0,
    ),
    "the exports are a link": ([link("exports", "folder")], EXPORT, 7),
    "the export is a link": ([folder("exports"), link("exports/new", "folder")], EXPORT, 2),
    "what an export replaces is a link": (
        [folder("exports"), link("exports/.tmp-new.replaced", "folder")],
        EXPORT,
        0,
    ),
}
"""What is planted, the command of the user, and its exit code; 0 where an intact checkpoint is
taken instead.
"""

QUICK = (
    ("the samples are a link", 0o1777),
    ("output_dir is a link", 0o777),
    ("the place where a run begins is another user's", 0o1777),
)


@pytest.mark.parametrize(("name", "mode"), quick_only(product(ATTACKS, SHARED), *QUICK))
def test_what_another_user_planted_changes_and_shows_nothing(place, name):
    plants, command, code = ATTACKS[name]
    private = place.home / "private"
    for plant in plants:
        plant(place, private)
    before = state_of(private)
    result = place.convo(*(word.format(run=place.run, shared=place.shared) for word in command))
    assert result.code == code, result
    assert "Traceback" not in result.err
    assert code == 0 or "\nhint: " in result.err
    assert state_of(private) == before
    assert SECRET not in result.out + result.err
    for path in place.shared.rglob("*"):
        if stat.S_ISREG(path.lstat().st_mode):
            assert SECRET.encode() not in path.read_bytes(), path
