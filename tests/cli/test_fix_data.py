"""`validate-data --fix`: a copy that can be trained on, a report of the repairs, nothing lost."""

from __future__ import annotations

import gzip
import json

import pytest
import zstandard

GOOD = b'["Hello", "Hi!"]\n'
REPAIRABLE = (
    GOOD + b'\n{"messages": [{"role": "user", "contents": "Tea &amp; milk?"}, {"role": "bot", '
    b'"content": "Yes."}]}\n'
)
BROKEN = REPAIRABLE + b'{"messages": [{"role": "narrator", "content": "Once"}]}\n["Hello"'


@pytest.fixture
def files(work):
    (work / "good.jsonl").write_bytes(GOOD)
    (work / "repairable.jsonl").write_bytes(REPAIRABLE)
    (work / "broken.jsonl").write_bytes(BROKEN)
    return work


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_repaired_lines_are_written_and_checked_and_the_exit_code_is_0(convo, files):
    result = convo("validate-data", "repairable.jsonl", "--fix", "out.jsonl")
    assert result.code == 0
    assert result.out.startswith("out.jsonl: 1 of 2 lines unchanged, 1 repaired, 0 left out\n")
    assert "repairable.jsonl:3:15 $.messages[0]" in result.out
    assert result.out.endswith("ok: 2 dialogues can be trained on\n")
    lines = (files / "out.jsonl").read_bytes().splitlines(keepends=True)
    assert lines[0] == GOOD
    assert json.loads(lines[1])["messages"][0]["content"] == "Tea & milk?"
    assert (files / "repairable.jsonl").read_bytes() == REPAIRABLE
    assert convo("validate-data", "out.jsonl").code == 0


def test_lines_beyond_repair_are_left_out_and_the_exit_code_is_3(convo, files):
    result = convo("validate-data", "broken.jsonl", "--fix", "out.jsonl")
    assert result.code == 3
    assert "1 of 4 lines unchanged, 1 repaired, 2 left out" in result.out
    assert "left out unknown-speaker  1\n  broken.jsonl:4:24 $.messages[0].role" in result.out
    assert "left out truncated-json  1\n  broken.jsonl:5:" in result.out
    assert convo("validate-data", "out.jsonl").code == 0


def test_a_good_file_is_copied_unchanged(convo, files):
    assert convo("validate-data", "good.jsonl", "--fix", "out.jsonl").code == 0
    assert (files / "out.jsonl").read_bytes() == GOOD


def test_as_json(convo, files):
    record = convo("validate-data", "broken.jsonl", "--fix", "out.jsonl", "--json").json
    assert (record["fix"]["num_lines"], record["fix"]["num_left_out"], record["is_trainable"]) == (
        4,
        2,
        True,
    )
    assert {group["code"] for group in record["fix"]["left_out"]} == {
        "unknown-speaker",
        "truncated-json",
    }
    assert [file["file"] for file in record["files"]] == ["out.jsonl"]
    assert convo("validate-data", "good.jsonl", "--json").json["fix"] is None


def test_several_files_become_one_compressed_by_its_suffix(convo, files):
    assert (
        convo("validate-data", "good.jsonl", "repairable.jsonl", "--fix", "out.jsonl.gz").code == 0
    )
    assert gzip.decompress((files / "out.jsonl.gz").read_bytes()).count(b"\n") == 3
    assert convo("validate-data", "good.jsonl", "--fix", "out.jsonl.zst").code == 0
    with zstandard.open(files / "out.jsonl.zst") as packed:
        assert packed.read() == GOOD


def test_equal_lines_give_equal_compressed_bytes(convo, files):
    for name in ("out.jsonl.gz", "again.jsonl.gz"):
        assert convo("validate-data", "good.jsonl", "--fix", name).code == 0
    assert (files / "out.jsonl.gz").read_bytes() == (files / "again.jsonl.gz").read_bytes()


def test_a_config_checks_the_fixed_file_in_its_pre_flight(convo, files):
    result = convo(
        "validate-data",
        "repairable.jsonl",
        "--fix",
        "out.jsonl",
        "--config",
        "config.yaml",
        "--json",
    )
    assert result.code == 0
    assert result.json["preflight"]["training"]["num_dialogues"] == 2


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("repairable.jsonl", "this is an input file"),
        ("./repairable.jsonl", "this is an input file"),
        ("good.jsonl", "already exists"),
        ("runs", "a directory"),
    ],
)
def test_no_existing_file_is_replaced(convo, files, out, message):
    before = names(files)
    result = convo("validate-data", "repairable.jsonl", "--fix", out)
    assert result.code == 2
    assert message in result.err
    assert names(files) == before
    assert (files / "repairable.jsonl").read_bytes() == REPAIRABLE
    assert (files / "good.jsonl").read_bytes() == GOOD


def test_force_replaces_a_file_but_never_the_input(convo, files):
    assert convo("validate-data", "repairable.jsonl", "--fix", "good.jsonl", "--force").code == 0
    assert (files / "good.jsonl").read_bytes().count(b"\n") == 2
    assert (
        convo("validate-data", "repairable.jsonl", "--fix", "repairable.jsonl", "--force").code == 2
    )


def test_no_file_is_written_without_a_good_line(convo, files):
    (files / "bad.jsonl").write_bytes(b'["Hello"\n')
    before = names(files)
    result = convo("validate-data", "bad.jsonl", "--fix", "out.jsonl")
    assert result.code == 3
    assert "no line can be trained on" in result.err
    assert names(files) == before


def test_a_name_that_is_too_long_is_refused(convo, files):
    result = convo("validate-data", "good.jsonl", "--fix", "x" * 300)
    assert result.code == 2
    assert ": this name is too long (300 bytes)\nhint: " in result.err


def test_a_file_in_place_of_the_folder_is_named(convo, files):
    result = convo("validate-data", "good.jsonl", "--fix", "good.jsonl/out.jsonl")
    assert result.code == 2
    message = "--fix good.jsonl/out.jsonl: good.jsonl is not a folder"
    assert result.err == f"error: {message}\nhint: choose a file in a folder\n"


def test_a_missing_folder_is_named(convo, files):
    result = convo("validate-data", "good.jsonl", "--fix", "nowhere/out.jsonl")
    assert result.code == 2
    assert (
        result.err
        == "error: --fix nowhere/out.jsonl: there is no folder nowhere\nhint: mkdir -p nowhere\n"
    )
