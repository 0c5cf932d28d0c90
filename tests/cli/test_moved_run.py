"""A run directory stores data paths relative to itself, so both can move together."""

from __future__ import annotations

import json
import shutil
import sys

import pytest

from tests.commands import run_here, settings

MORE = settings("training.max_steps=8")


def test_a_run_names_no_folder_above_its_data(convo, work):
    for name in ("config.yaml", "run.json", "metrics.jsonl", "samples.jsonl"):
        assert str(work) not in (work / "runs/tiny" / name).read_text(encoding="utf-8")
    info = json.loads((work / "runs/tiny/run.json").read_bytes())
    assert info["config"]["data"]["train"] == ["../../train.jsonl"]
    assert [file["path"] for file in info["train"]] == ["../../train.jsonl"]
    assert "../../valid.jsonl" in (work / "runs/tiny/config.yaml").read_text(encoding="utf-8")


def test_a_run_moves_together_with_its_data(work, tmp_path):
    moved = tmp_path / "elsewhere/deep"
    moved.parent.mkdir()
    work.rename(moved)
    result = run_here(tmp_path, "resume", "elsewhere/deep/runs/tiny", "-q", *MORE)
    assert (result.code, result.err) == (0, "")
    info = json.loads((moved / "runs/tiny/run.json").read_bytes())
    assert info["config"]["data"]["train"] == ["../../train.jsonl"]
    assert run_here(moved, "resume", "runs/tiny", "--verify", "-q").code == 0
    forked = run_here(
        moved, "resume", "runs/tiny", "-q", *settings("name=fork", "training.max_steps=9")
    )
    assert (forked.code, forked.out) == (0, "runs/fork\n")
    assert "../../train.jsonl" in (moved / "runs/fork/config.yaml").read_text(encoding="utf-8")
    assert (
        run_here(
            tmp_path, "evaluate", "elsewhere/deep/runs/tiny", moved / "valid.jsonl", "--replies", 0
        ).code
        == 0
    )


def test_data_that_stayed_behind_is_named_with_the_key_to_set(work, tmp_path):
    shutil.move(work / "runs/tiny", tmp_path / "tiny")
    result = run_here(tmp_path, "resume", "tiny", "-q", *MORE)
    assert result.code == 2
    assert result.err.startswith(
        f"error: the run's config data.train: {tmp_path.parent / 'train.jsonl'} does not exist\n"
        "hint: "
    )
    assert "--set data.train=PATH" in result.err
    paths = settings(
        f"data.train={work / 'train.jsonl'}", f"data.validation={work / 'valid.jsonl'}"
    )
    result = run_here(tmp_path, "resume", "tiny", "-q", *MORE, *paths)
    assert (result.code, result.err) == (0, "")
    assert json.loads((tmp_path / "tiny/run.json").read_bytes())["config"]["data"]["train"] == [
        "../work/train.jsonl"
    ]


def test_a_run_that_moved_alone_finds_its_data_from_the_working_folder_and_above(work, tmp_path):
    shutil.move(work / "runs/tiny", work / "tiny")
    assert run_here(tmp_path, "resume", "work/tiny", "-q", *MORE).code == 0
    shutil.move(work / "tiny", tmp_path / "tiny")
    result = run_here(work, "resume", "../tiny", "-q", *settings("training.max_steps=9"))
    assert (result.code, result.err) == (0, "")
    (work / "train.jsonl").write_text('["another", "file"]\n')
    result = run_here(work, "resume", "../tiny", "-q", *settings("training.max_steps=10"))
    assert result.code == 6
    assert "not the data that the run began with" in result.err


def test_the_config_of_a_run_starts_another_from_any_folder(work, tmp_path):
    start = [
        "train",
        "work/runs/tiny/config.yaml",
        "-q",
        *settings("name=again", "training.max_steps=2"),
    ]
    result = run_here(tmp_path, *start)
    assert (result.code, result.err) == (0, "")
    assert "../../work/train.jsonl" in (tmp_path / "runs/again/config.yaml").read_text(
        encoding="utf-8"
    )


def test_a_run_with_absolute_data_paths_resumes(convo, work):
    config, info = work / "runs/tiny/config.yaml", work / "runs/tiny/run.json"
    for file in (config, info):
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace("../../", f"{work}/"), encoding="utf-8")
    assert convo("resume", "runs/tiny", "-q", *MORE).code == 0
    assert str(work) not in config.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name", ["red\x1b[31m", "next\x85line", b"\xff".decode("utf-8", "surrogateescape")]
)
@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="no such names")
def test_a_folder_whose_name_is_not_text_may_hold_the_data(work, tmp_path, name):
    place = work.rename(tmp_path / name)
    runs = tmp_path / "runs"
    result = run_here(
        place, "train", "config.yaml", "-q", *settings(f"output_dir={runs}", "name=other")
    )
    assert (result.code, result.err) == (0, "")
    for steps in (8, 9):
        result = run_here(
            place, "resume", runs / "other", "-q", *settings(f"training.max_steps={steps}")
        )
        assert (result.code, result.err) == (0, "")
