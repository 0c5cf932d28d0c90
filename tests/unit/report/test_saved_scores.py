"""Scores from a file of `convo evaluate --json`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from convo_cli.errors import UsageError
from convo_cli.report.comparing.comparison import compare
from convo_cli.report.comparing.comparison_tables import saved_table
from convo_cli.report.comparing.members import open_members
from convo_cli.report.comparing.saved_scores import read_scores
from tests.written_runs import healthy, write_run

SCORED = {
    "command": "evaluate",
    "data": [{"path": "test.jsonl", "sha256": "a" * 64}],
    "scores": {"loss": 2.5, "bleu-4": 1.25, "bad": None, "<b>": 3},
    "intervals": {"loss": [2.25, 2.75], "bleu-4": [None, 1]},
    "likelihood": {"bits_per_byte": 1.125},
}


@pytest.fixture
def members(tmp_path):
    write_run(tmp_path / "a", healthy(20, 10))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    return open_members([str(tmp_path / "a"), str(tmp_path / "model")])


def written(folder: Path, value: object) -> Path:
    path = folder / "scores.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def test_the_scores_of_one_model(tmp_path, members):
    found = read_scores(written(tmp_path, {**SCORED, "model": members[1].source}), members)
    assert found[0] is None
    assert found[1].scores == {"loss": 2.5, "bleu-4": 1.25, "bits-per-byte": 1.125}
    assert found[1].intervals == {"loss": (2.25, 2.75)}
    comparison = compare(members, found)
    assert not any("no log of a run" in caution for caution in comparison.cautions)
    rows = {row[0]: row[1:] for row in saved_table(comparison).rows}
    assert rows["loss"] == ("–", "2.50 (2.25 to 2.75)")


def test_scores_of_several_models_on_other_data_are_a_caution(tmp_path, members):
    other = {**SCORED, "model": f"{tmp_path}/a/../a", "data": [{"path": "b", "sha256": "b"}]}
    both = {"command": "evaluate", "models": [{**SCORED, "model": members[1].source}, other, 7]}
    found = read_scores(written(tmp_path, both), members)
    assert all(found)
    cautions = compare(members, found).cautions
    assert (
        "the scores of convo evaluate are from different data, so they cannot be compared"
        in cautions
    )


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([1], "not the output of convo evaluate --json"),
        ({"command": "train"}, "not the output of convo evaluate --json"),
        (
            {"command": "evaluate", "error": {"message": "no disk"}},
            "convo evaluate failed: no disk",
        ),
        (
            {"command": "evaluate", "models": [{"model": "\x00", "scores": {"a": 1}}]},
            "no scores of the given models",
        ),
        ({**SCORED, "model": "elsewhere"}, "no scores of the given models"),
    ],
)
def test_another_file_is_refused(tmp_path, members, value, says):
    with pytest.raises(UsageError, match=says):
        read_scores(written(tmp_path, value), members)


def test_a_file_that_cannot_be_read_is_refused(tmp_path, members):
    (tmp_path / "bad.json").write_bytes(b"[" * 100_000)
    for name, says in (("none.json", "No such file"), ("bad.json", "not one"), (".", "directory")):
        with pytest.raises(UsageError, match=says):
            read_scores(tmp_path / name, members)
