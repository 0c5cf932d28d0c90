"""The default config trains in any folder, because `init-config` creates the sample dialogues."""

from __future__ import annotations

import shutil

import pytest

from convo_cli.cli import config_files
from tests.commands import run_here, run_process, snapshot
from tests.conftest import SAMPLE_DATA

CREATED = "Created sample_data/ with the sample dialogues that this config trains on\n"


@pytest.mark.parametrize("where", [["-o", "config.yaml"], []])
def test_the_samples_are_created_beside_a_config_in_a_file(tmp_path, where):
    result = run_process(tmp_path, "init-config", *where)
    assert (result.code, result.err.splitlines()[-1] + "\n") == (0, CREATED)
    for sample in SAMPLE_DATA.iterdir():
        assert (tmp_path / "sample_data" / sample.name).read_bytes() == sample.read_bytes()
    if where:
        validated = run_here(tmp_path, "validate-data", "--config", "config.yaml", "-q")
        assert validated.code == 0


def test_the_text_of_the_samples_is_enough_for_the_vocabulary_of_the_config(tmp_path):
    run_process(tmp_path, "init-config", "-o", "config.yaml")
    planned = run_here(tmp_path, "train", "config.yaml", "--dry-run")
    assert (planned.code, "vocabulary" in planned.err) == (0, False)


def test_samples_that_exist_stay_as_they_are(tmp_path):
    shutil.copytree(SAMPLE_DATA, tmp_path / "sample_data")
    (tmp_path / "sample_data" / "train.jsonl").write_text('["My own", "Yes."]\n')
    (tmp_path / "sample_data" / "broken.jsonl").unlink()
    before = snapshot(tmp_path)
    assert run_here(tmp_path, "init-config").err == ""
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    "arguments",
    ["--train my.jsonl", "--preset dailydialog", "--schema", "--list-presets", "--json"],
)
def test_no_samples_are_created_without_need(tmp_path, arguments):
    (tmp_path / "my.jsonl").write_text('["a", "b"]\n' * 20)
    run_here(tmp_path, "init-config", *arguments.split())
    assert not (tmp_path / "sample_data").exists()


def test_a_config_on_a_terminal_creates_no_samples(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.commands._Kept.isatty", lambda self: True, raising=False)
    assert run_here(tmp_path, "init-config").err == ""
    assert list(tmp_path.iterdir()) == []


def test_quiet_creates_them_without_a_word(tmp_path):
    assert run_here(tmp_path, "init-config", "-q").err == ""
    assert (tmp_path / "sample_data" / "train.jsonl").exists()


def test_a_folder_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / "sample_data").write_text("a file")
    result = run_here(tmp_path, "init-config")
    assert result == (
        7, "", "error: sample_data: File exists\nhint: use your own data: --train FILE\n",
    )  # fmt: skip


def test_the_installed_samples_come_first(tmp_path, monkeypatch):
    installed = tmp_path / "installed"
    installed.mkdir()
    (installed / "train.jsonl").write_text("installed")
    monkeypatch.setattr(config_files, "_INSTALLED", installed)
    monkeypatch.chdir(tmp_path)
    assert config_files.copy_samples(["sample_data/train.jsonl"])
    assert (tmp_path / "sample_data" / "train.jsonl").read_text() == "installed"
