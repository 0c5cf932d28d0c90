"""Folders and patterns of a config: expanded when a run begins, refused if they name nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from convo_cli.cli.config_paths import require_data_of_run, require_paths
from convo_cli.config.load import locate_config, locate_overrides
from convo_cli.data.file_lists import files_of
from convo_cli.errors import ConfigError, UsageError

CONFIG = """\
data:
  train: {train}
  validation: {validation}
model: {{scratch: {{}}}}
training: {{max_steps: 1}}
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.jsonl", "a.jsonl.gz", "C.JSONL.zst", ".hidden.jsonl", "notes.md", "x.json"):
        (tmp_path / "data" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "data" / name).touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "one.jsonl").touch()


def located(train, validation="[]"):
    with open("config.yaml", "w", encoding="utf-8") as file:
        file.write(CONFIG.format(train=train, validation=validation))
    return locate_config(Path("config.yaml"))


def test_a_folder_stands_for_its_data_files_and_a_pattern_for_its_matches():
    files = ["data/C.JSONL.zst", "data/a.jsonl.gz", "data/b.jsonl"]
    assert files_of("data") == files_of("data/") == files
    assert files_of("data/*.js*") == ["data/a.jsonl.gz", "data/b.jsonl", "data/x.json"]
    assert files_of("**/*.json*") == [*files_of("data/*.js*"), "one.jsonl"]
    assert files_of("missing.jsonl") == ["missing.jsonl"]
    with open("[b].jsonl", "w", encoding="utf-8"):
        assert files_of("[b].jsonl") == ["[b].jsonl"]


def test_every_file_of_an_entry_has_its_weight():
    config = require_paths(located("[{path: data, weight: 3}, one.jsonl]", "'data/*.json'"))
    assert config.data.train == (*files_of("data"), "one.jsonl")
    assert config.data.weights == (3, 3, 3, 1)
    assert config.data.validation == ("data/x.json",)


def test_a_run_keeps_its_files_when_one_is_added():
    config = require_paths(located("data"))
    with open("data/later.jsonl", "w", encoding="utf-8"):
        assert require_data_of_run(locate_overrides(config, ["seed=7"])).data.train == (
            *files_of("data")[:3],
        )
    again = require_data_of_run(locate_overrides(config, ["data.train=data"]))
    assert again.data.train[-1] == "data/later.jsonl"


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("nothing*.jsonl", "no file matches nothing"),
        ("empty", "empty is a directory without a data file"),
        ("[one.jsonl, ./one.jsonl]", "one.jsonl is listed twice"),
        ("[data/b.jsonl, {path: data, weight: 2}]", "data/b.jsonl is listed twice"),
        ("[one.jsonl, second-name.jsonl]", "second-name.jsonl is listed twice"),
        ('""', 'found ""; allowed: the path of a file or folder'),
        ('[{path: "", weight: 2}, one.jsonl]', 'found ""; allowed: the path of a file or folder'),
        ("link.jsonl", "cannot be read: Too many levels of symbolic links"),
        ("loops", "loops/loop.jsonl cannot be read: Too many levels of symbolic links"),
        ("pipes", "pipes/p.jsonl is a pipe"),
        ("bytes", "a config cannot hold the file name"),
        ("many", "1,001 files; a run can have 1,000"),
    ],
)
def test_an_entry_that_names_no_usable_file_is_one_problem(tmp_path, train, message):
    os.symlink("link.jsonl", "link.jsonl")
    for name in ("loops", "pipes", "bytes", "many"):
        (tmp_path / name).mkdir()
    os.symlink("loop.jsonl", "loops/loop.jsonl")
    os.mkfifo("pipes/p.jsonl")
    os.link("one.jsonl", "second-name.jsonl")
    (tmp_path / "bytes" / os.fsdecode(b"\xff.jsonl")).touch()
    for number in range(1001):
        (tmp_path / "many" / f"{number}.jsonl").touch()
    with pytest.raises(ConfigError) as caught:
        require_paths(located(train))
    assert message in caught.value.message
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].line == 2


def test_a_run_that_began_with_a_file_twice_can_be_resumed():
    config = require_paths(located("one.jsonl")).data
    twice = config.with_files({"train": ("one.jsonl",) * 2}, (1, 1))
    run = require_paths(located("one.jsonl")).model_copy(update={"data": twice})
    assert require_data_of_run(locate_overrides(run, [])).data.train == ("one.jsonl",) * 2


def test_a_folder_that_cannot_be_read_is_refused(monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.iterdir", refuse)
    with pytest.raises(UsageError, match="data cannot be read: Permission denied"):
        files_of("data")
