"""What a run began with is written down, and going on with anything else is refused by name."""

from __future__ import annotations

import json
import platform

import pytest

from convo_cli import __version__
from convo_cli.config.schema import DataConfig
from convo_cli.errors import ChangedError, CheckpointError, UsageError
from convo_cli.runs.layout import RunDirectory
from convo_cli.runs.provenance import read_data_files, require_same_data, write_run_info


@pytest.fixture
def data(tmp_path):
    paths = {}
    for name in ("train", "more", "valid"):
        path = tmp_path / f"{name}.jsonl"
        path.write_text(f'["{name}", "yes"]\n')
        paths[name] = str(path)
    return DataConfig(train=(paths["train"], paths["more"]), validation=paths["valid"])


@pytest.fixture
def run(tmp_path, data):
    run = RunDirectory(tmp_path)
    write_run_info(run, read_data_files(data), device="cpu")
    return run


def test_versions_device_and_hashes_are_written_down(run, data):
    info = json.loads(run.info.read_text())
    assert (info["convo"], info["python"], info["device"]) == (__version__, platform.python_version(), "cpu")
    assert {"torch", "transformers", "tokenizers", "numpy"} <= info["packages"].keys()
    assert [file["path"] for file in info["train"]] == list(data.train)
    assert all(len(file["sha256"]) == 64 for file in info["train"] + info["validation"])


def test_the_same_data_passes_also_from_another_place(run, data, tmp_path):
    require_same_data(run, read_data_files(data))
    moved = tmp_path / "moved.jsonl"
    moved.write_bytes((tmp_path / "valid.jsonl").read_bytes())
    require_same_data(run, read_data_files(data.model_copy(update={"validation": (str(moved),)})))


def test_a_changed_file_is_named_with_both_hashes(run, data, tmp_path):
    (tmp_path / "more.jsonl").write_text('["more", "no"]\n')
    with pytest.raises(ChangedError, match=r"more\.jsonl: not the data that the run began with") as caught:
        require_same_data(run, read_data_files(data))
    before = json.loads(run.info.read_text())["train"][1]["sha256"][:12]
    assert f"SHA-256 {before}…, now " in caught.value.message
    assert caught.value.exit_code == 6


def test_files_in_another_order_are_other_data(run, data):
    with pytest.raises(ChangedError, match="not the data that the run began with"):
        require_same_data(run, read_data_files(data.model_copy(update={"train": data.train[::-1]})))


@pytest.mark.parametrize(("key", "count"), [("train", 2), ("validation", 1)])
def test_another_number_of_files_is_named(run, data, key, count):
    changed = data.model_copy(update={key: (*getattr(data, key), data.train[0])})
    with pytest.raises(ChangedError, match=rf"data\.{key} names {count + 1} files, but the run began with {count}"):
        require_same_data(run, read_data_files(changed))


def test_a_missing_file_is_a_usage_error(data, tmp_path):
    (tmp_path / "train.jsonl").unlink()
    with pytest.raises(UsageError, match=r"train\.jsonl: No such file or directory"):
        read_data_files(data)


def test_lines_are_counted_where_they_can_be_seen(data, tmp_path):
    packed = tmp_path / "more.jsonl.gz"
    packed.write_bytes(b"\n\n")
    counted = read_data_files(data.model_copy(update={"train": (*data.train, str(packed))})).train
    assert [file.num_lines for file in counted] == [1, 1, 0]


@pytest.mark.parametrize("content", [None, "", "{}", '{"format": 2}', "[" * 100_000])
def test_a_missing_or_foreign_run_json_is_named(run, data, content):
    run.info.unlink()
    if content is not None:
        run.info.write_text(content)
    with pytest.raises(CheckpointError, match=r"run\.json: cannot be read"):
        require_same_data(run, read_data_files(data))
