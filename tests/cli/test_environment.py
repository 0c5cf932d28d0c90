"""The environment of a command: full disks, closed streams, long paths, few descriptors, homes."""

from __future__ import annotations

import itertools
import os
import subprocess

import pytest

from convo_cli.runs.directory import RunDirectory
from tests.cases import quick_first
from tests.commands import (
    EXECUTABLE,
    PICTURES,
    Result,
    environment,
    make_workplace,
    run_here,
    settings,
)
from tests.forks import run_fork

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a POSIX shell")
full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
FULL = (
    "error: stdout: No space left on device\nhint: free some space, or write the output elsewhere\n"
)
RUN = settings("training.max_steps=1", "data.validation=[]")


OF_LAUNCHER = "sh: 0: getcwd() failed: No such file or directory\n"
"""A line of pip's launcher, a shell script where the path of the environment has a space."""


def shell(folder, redirection, *arguments, before="", **changes) -> Result:
    """Run the executable in a shell, with redirections and a command before it."""
    ran = subprocess.run(
        ["bash", "-c", f'{before}\nexec "$@" {redirection}', "bash", EXECUTABLE, *arguments],
        cwd=folder,
        env=environment(**changes),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Result(ran.returncode, ran.stdout, ran.stderr.removeprefix(OF_LAUNCHER))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a config, data and a finished run in runs/tiny. Leave it as it is."""
    folder = make_workplace(tmp_path_factory.mktemp("place"))
    assert run_fork(folder, "train", "config.yaml", "-q", *RUN).code == 0
    return folder


@full
@pytest.mark.parametrize(
    "words",
    [
        "",
        "--help",
        "--version",
        "train --help",
        "init-config --preset dailydialog",
        "init-config --schema",
        "init-config --json",
        "validate-data train.jsonl",
        "validate-data train.jsonl --json",
    ],
)
def test_a_result_that_does_not_fit_on_the_disk_is_an_error(place, words):
    assert shell(place, "> /dev/full", *words.split()) == Result(7, "", FULL)


def run_in_vain(folder, *arguments, stdin=b""):
    """Run a command in a fork with its stdout on a full disk."""
    with open("/dev/full", "wb") as full_disk:
        return run_fork(folder, *arguments, stdin=stdin, stdout=full_disk)


@full
@pytest.mark.parametrize(
    "words",
    [
        "chat runs/tiny --seed 1",
        pytest.param("evaluate runs/tiny valid.jsonl --replies 0", marks=pytest.mark.slow),
    ],
)
def test_scores_and_replies_that_do_not_fit_on_the_disk_are_an_error(place, words):
    result = run_in_vain(place, *words.split(), stdin=b"Hello!\n")
    assert (result.code, result.err[-len(FULL) :]) == (7, FULL)


@full
def test_an_error_keeps_its_exit_code_when_its_json_does_not_fit_on_the_disk(place):
    result = shell(place, "> /dev/full", "train", "nowhere.yaml", "--json")
    assert result.code == 2
    assert result.err.splitlines()[0] == "error: nowhere.yaml: no such file"
    assert result.err.splitlines()[-1].startswith("warning: stdout: No space left on device; ")


LOST = "warning: stdout: No space left on device; the run itself is complete: runs/tiny\n"


@full
def test_a_finished_run_is_finished_although_its_output_is_lost(tmp_path):
    make_workplace(tmp_path)
    result = run_in_vain(tmp_path, "train", "config.yaml", *RUN)
    assert (result.code, result.err[-len(LOST) :]) == (0, LOST)
    assert RunDirectory(tmp_path / "runs/tiny").checkpoint_steps()[-1] == 1


@full
@pytest.mark.slow
@pytest.mark.parametrize(
    "redirection", ["> /dev/full", "2> /dev/full", "> /dev/full 2>&1", "--json > /dev/full"]
)
def test_a_run_of_the_executable_is_finished_although_its_output_is_lost(tmp_path, redirection):
    make_workplace(tmp_path)
    result = shell(tmp_path, redirection, "train", "config.yaml", *RUN)
    assert result.code == 0
    assert RunDirectory(tmp_path / "runs/tiny").checkpoint_steps()[-1] == 1
    assert result.err[-len(LOST) :] == ("" if "2>" in redirection else LOST)
    assert result.out == ("runs/tiny\n" if redirection[0] == "2" else "")


@full
def test_an_export_is_complete_although_its_output_is_lost(place, tmp_path):
    result = run_in_vain(place, "export", "runs/tiny", str(tmp_path / "model"), "-q")
    lost = "warning: stdout: No space left on device; the export itself is complete: "
    assert result.code == 0
    assert result.err.splitlines()[-1] == f"{lost}{tmp_path}/model"


CLOSED = [
    " ".join(closed)
    for count in (1, 2, 3)
    for closed in itertools.combinations(("<&-", ">&-", "2>&-"), count)
]
ANSWERS = {
    "--version": 0,
    "": 2,
    "train --help": 0,
    "init-config --preset dailydialog": 0,
    "validate-data train.jsonl": 0,
    "train nowhere.yaml": 2,
    "resume nowhere": 2,
    "chat ./nowhere": 2,
    "evaluate ./nowhere train.jsonl": 2,
    "export nowhere out": 2,
}


@pytest.fixture(scope="module")
def answers(place):
    """What the commands answer when all streams are open."""
    return {words: shell(place, "", *words.split()) for words in ANSWERS}


@pytest.mark.parametrize(
    "closed",
    quick_first(CLOSED[::-1]),
)
def test_closed_streams_change_neither_the_exit_code_nor_the_other_streams(place, answers, closed):
    for words, code in ANSWERS.items():
        opened = answers[words]
        assert opened.code == code
        out = "" if " >&-" in f" {closed}" else opened.out
        err = "" if "2>&-" in closed else opened.err
        assert shell(place, closed, *words.split()) == Result(code, out, err)


def test_a_run_without_any_stream_is_the_run_with_them(place, tmp_path):
    make_workplace(tmp_path)
    closed = shell(tmp_path, "<&- >&- 2>&-", "train", "config.yaml", *RUN)
    assert closed == Result(0, "", "")
    first, second = (
        RunDirectory(folder / "runs/tiny").checkpoint(1) for folder in (place, tmp_path)
    )
    name = "model.safetensors"
    assert (first / name).read_bytes() == (second / name).read_bytes()


@pytest.mark.parametrize("words", ["validate-data -", "chat runs/tiny"])
def test_a_closed_stdin_is_named_where_it_is_read(place, words):
    result = shell(place, "<&-", *words.split())
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: stdin is closed, so ")


def test_a_deleted_working_directory_is_named(place, tmp_path):
    for words in (word for word, code in ANSWERS.items() if "-" not in word[:2] and word):
        if "--help" in words:
            continue
        gone = tmp_path / "gone"
        result = shell(
            place, "", *words.split(), before=f"mkdir {gone} && cd {gone} && rmdir {gone}"
        )
        assert result == Result(
            2,
            "",
            "error: the working directory no longer exists\nhint: cd to a folder that exists\n",
        )


@pytest.mark.parametrize("words", ["--version", "--help", "chat --help"])
def test_help_needs_no_working_directory(place, tmp_path, words):
    gone = tmp_path / "gone"
    result = shell(place, "", *words.split(), before=f"mkdir {gone} && cd {gone} && rmdir {gone}")
    assert (result.code, result.err) == (0, "")


LONG = "n" * 300
DEEP = "folder12/" * 500
PATHS = [
    "init-config -o {}",
    "validate-data {}",
    "validate-data train.jsonl --fix {}",
    "validate-data --config {}",
    "train {}",
    "train config.yaml --set output_dir={}",
    "train config.yaml --set data.train={}",
    "train config.yaml --set model.scratch=null --set model.pretrained={}",
    "resume {}",
    "export {} out",
    "export runs/tiny {}",
    "chat {}",
    "evaluate {} train.jsonl",
    "evaluate runs/tiny {}",
]


@pytest.mark.parametrize("words", PATHS)
def test_a_path_that_is_too_long_is_named_and_shortened(place, words):
    for path, what in ((LONG, "name is too long (300 bytes)"), (DEEP, "path is too long (4")):
        result = run_here(place, *words.format(path).split())
        assert (result.code, result.out) == (2, "")
        message, hint = result.err.splitlines()
        assert f": this {what}" in message
        assert len(message) < 150
        assert hint == "hint: most systems allow 255 bytes in a name and 4095 in a path"


@pytest.mark.parametrize(
    "words",
    [
        "validate-data train.jsonl",
        "chat runs/tiny",
        pytest.param("evaluate runs/tiny valid.jsonl", marks=pytest.mark.slow),
    ],
)
def test_few_descriptors_are_enough_or_are_named(place, words):
    result = shell(place, "", *words.split(), before="ulimit -n 16")
    if result.code != 0:
        assert result == Result(
            2,
            "",
            "error: too many open files: the limit of this shell is too low for convo\n"
            "hint: raise it: ulimit -n 1024\n",
        )


@pytest.mark.parametrize(
    "home",
    ["/dev/null", *(pytest.param(home, marks=pytest.mark.slow) for home in ("/nowhere", ""))],
)
def test_a_home_that_cannot_be_written_is_not_mentioned(tmp_path, home):
    make_workplace(tmp_path)
    changes = {"HOME": home, "XDG_CACHE_HOME": home, "XDG_CONFIG_HOME": home, "HF_HOME": home}
    result = shell(tmp_path, "", "train", "config.yaml", "-q", *RUN, *PICTURES, **changes)
    assert result == Result(0, "runs/tiny\n", "")


OF_DATA = (
    "validate-data ~/train.jsonl --fix ~/fixed.jsonl",
    "validate-data --config ~/config.yaml",
    "init-config --train ~/train.jsonl -o ~/made.yaml",
)
OF_RUN = (
    "resume ~/runs/tiny",
    "export ~/runs/tiny ~/model",
    "evaluate ~/model ~/valid.jsonl --replies 0",
)


@pytest.mark.parametrize(
    ("commands", "created"),
    [
        (OF_DATA, {"fixed.jsonl", "made.yaml"}),
        pytest.param(OF_RUN, {"model"}, marks=pytest.mark.slow),
    ],
)
def test_a_home_is_expanded_wherever_a_path_is_given(place, tmp_path, commands, created):
    home = environment(HOME=str(tmp_path))
    make_workplace(tmp_path)
    data = settings("data.train=~/train.jsonl", "data.validation=[~/valid.jsonl]")
    ran = run_fork(tmp_path, "train", "~/config.yaml", "-q", *RUN[:2], *data, *settings(
        "output_dir=~/runs"), env=home)  # fmt: skip
    assert ran == Result(0, f"{tmp_path}/runs/tiny\n", "")
    assert not (tmp_path / "~").exists()
    for words in commands:
        assert run_fork(tmp_path, *words.split(), env=home).code == 0, words
    assert created <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("~nobody-here/x", "~nobody-here/x: there is no user nobody-here"),
        ("~/x", "~/x: the home folder is unknown"),
    ],
)
def test_a_home_that_is_not_there_is_named(place, path, message):
    for words in ("validate-data {}", "train {}", "train config.yaml --set output_dir={}"):
        result = shell(place, "", *words.format(path).split(), HOME="")
        assert (result.code, message in result.err.splitlines()[0]) == (2, True)
