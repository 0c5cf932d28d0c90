"""run.json holds what a run began with; a resume refuses anything else, with both values."""

from __future__ import annotations

import hashlib
import json
import platform

import pytest

from convo_cli import __version__
from convo_cli.config.load import apply_overrides, load_config
from convo_cli.config.schema import DataConfig, RunConfig
from convo_cli.errors import CheckpointError, UsageError
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.provenance.changes import (
    changes_of_base_model,
    changes_of_config,
    changes_of_data,
)
from convo_cli.runs.provenance.data_files import read_data_files
from convo_cli.runs.provenance.execution import Execution
from convo_cli.runs.provenance.git import GitState
from convo_cli.runs.provenance.run_info import (
    make_run_info,
    read_base_model,
    read_run_info,
    write_provenance,
)
from convo_cli.unseen import has_unseen

EXECUTION = Execution(
    device="cpu", device_name="a processor", precision="fp32", num_threads=2,
    cpu_capability="AVX2", environment={}, is_packed=True, why_padded=None, has_plain_head=True,
    attention="one example length at a time",
)  # fmt: skip


@pytest.fixture
def data(tmp_path):
    paths = {}
    for name in ("train", "more", "valid"):
        path = tmp_path / f"{name}.jsonl"
        path.write_text(f'["{name}", "yes"]\n')
        paths[name] = str(path)
    return DataConfig(train=(paths["train"], paths["more"]), validation=(paths["valid"],))


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "README.md").write_text("a model")
    return folder


@pytest.fixture
def config(data, model):
    values = {
        "data": data.model_dump(),
        "model": {"pretrained": str(model)},
        "training": {"max_steps": 9},
    }
    return RunConfig.model_validate(values)


@pytest.fixture
def run(tmp_path, data, config, model):
    run = RunDirectory(tmp_path)
    base_model = read_base_model(str(model), model)
    info = make_run_info(
        config,
        read_data_files(data),
        execution=EXECUTION,
        git=None,
        base_model=base_model,
        max_steps=9,
    )
    write_provenance(run, info)
    return run


@pytest.fixture
def info(run):
    return read_run_info(run)


def test_versions_device_and_hashes_are_written_down(run, data, config):
    info = json.loads(run.info.read_text())
    assert (info["convo"], info["python"]) == (__version__, platform.python_version())
    assert info["execution"] == EXECUTION.model_dump()
    assert info["changes"] == []
    assert {"torch", "transformers", "tokenizers", "numpy"} <= info["packages"].keys()
    assert [file["path"] for file in info["train"]] == list(data.train)
    assert all(len(file["sha256"]) == 64 for file in info["train"] + info["validation"])
    assert read_run_info(run).config == load_config(run.config) == config


# Data


def test_the_same_data_passes_also_from_another_place(info, data, tmp_path):
    assert changes_of_data(info, read_data_files(data)) == []
    moved = tmp_path / "moved.jsonl"
    moved.write_bytes((tmp_path / "valid.jsonl").read_bytes())
    assert (
        changes_of_data(
            info, read_data_files(data.model_copy(update={"validation": (str(moved),)}))
        )
        == []
    )


def test_a_changed_file_is_named_with_both_hashes(info, data, tmp_path):
    (tmp_path / "more.jsonl").write_text('["more", "no"]\n')
    (change,) = changes_of_data(info, read_data_files(data))
    assert change.startswith(f"{tmp_path / 'more.jsonl'}: not the data that the run began with")
    assert f"SHA-256 {info.train[1].sha256}, this file has " in change


def test_files_in_another_order_are_other_data(info, data):
    changes = changes_of_data(
        info, read_data_files(data.model_copy(update={"train": data.train[::-1]}))
    )
    assert len(changes) == 2


def test_lines_in_another_order_are_other_data(data, config, tmp_path):
    lines = ['["a", "b"]\n', '["c", "d"]\n']
    (tmp_path / "more.jsonl").write_text("".join(lines))
    before = make_run_info(
        config, read_data_files(data), execution=EXECUTION, git=None, base_model=None, max_steps=9
    )
    (tmp_path / "more.jsonl").write_text("".join(reversed(lines)))
    assert len(changes_of_data(before, read_data_files(data))) == 1


@pytest.mark.parametrize(("key", "count"), [("train", 2), ("validation", 1)])
def test_another_number_of_files_is_named(info, data, key, count):
    changed = data.model_copy(update={key: (*getattr(data, key), data.train[0])})
    assert changes_of_data(info, read_data_files(changed)) == [
        f"data.{key} lists {count + 1} files, but the run began with {count}"
    ]


# The base model


def test_the_same_base_model_passes_and_so_does_one_that_is_gone_and_files_that_say_nothing(
    info, model, tmp_path
):
    (model / "README.md").write_text("a better card")
    assert changes_of_base_model(RunDirectory(tmp_path), info) == []
    model.rename(tmp_path / "elsewhere")
    assert changes_of_base_model(RunDirectory(tmp_path), info) == []


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "more.safetensors"])
def test_another_file_of_the_base_model_is_named(info, model, name, tmp_path):
    (model / name).write_bytes(b"other")
    (change,) = changes_of_base_model(RunDirectory(tmp_path), info)
    assert change.startswith(
        f"{model / name}: not the base model that the run began with (SHA-256 "
    )


def test_the_commit_of_a_hub_id_is_the_name_of_its_snapshot(tmp_path):
    folder = tmp_path / "snapshots" / "0123abcd"
    folder.mkdir(parents=True)
    assert read_base_model("org/name", folder).commit == "0123abcd"
    assert read_base_model(str(folder), folder).commit is None, "given by its path"
    assert read_base_model("here", tmp_path).commit is None


# config.yaml


def change_config(run, before, after):
    text = run.config.read_text()
    assert before in text
    run.config.write_text(text.replace(before, after))
    return changes_of_config(run, read_run_info(run), load_config(run.config))


def test_a_key_that_somebody_else_changed_is_named_with_both_values(run):
    changes = change_config(run, "max_steps: 9", "max_steps: 90")
    assert changes == [f"{run.config}: training.max_steps is 90, but 9 in run.json"]


def test_comments_and_other_places_of_the_data_are_no_change(run):
    assert change_config(run, "max_steps: 9", "max_steps: 9  # enough") == []
    assert change_config(run, "more.jsonl", "moved.jsonl") == []


def test_what_convo_wrote_is_no_change_also_where_run_json_does_not_know_it_yet(run, info, config):
    """A process may be killed between the two files."""
    old = run.info.read_bytes()
    longer = apply_overrides(config, ["training.max_steps=90"])
    write_provenance(run, info.model_copy(update={"config": longer}))
    run.info.write_bytes(old)
    assert changes_of_config(run, info, longer) == []


def test_what_is_unseen_stands_as_escapes_in_run_json_and_config_yaml(run, info, config):
    odd = apply_overrides(
        config, ['model.pretrained="/a\\u202e\\u200b\\U000e0041é/b"', "model.revision=x"]
    )
    write_provenance(run, info.model_copy(update={"config": odd}))
    for file in (run.info, run.config):
        assert not has_unseen(file.read_text(encoding="utf-8"))
    assert read_run_info(run).config == odd == load_config(run.config)
    assert read_run_info(run).is_intact
    assert changes_of_config(run, read_run_info(run), odd) == []


# run.json of earlier versions


def test_a_run_json_that_says_whether_files_were_changed_is_still_intact(run, info):
    old = info.model_copy(update={"git": GitState(commit="a" * 40, is_dirty=True)})
    write_provenance(run, old)
    text = run.info.read_text(encoding="utf-8")
    assert json.loads(text)["git"] == {"commit": "a" * 40, "is_dirty": True}
    assert read_run_info(run).is_intact
    run.info.write_text(text.replace('"is_dirty": true', '"is_dirty": false'), encoding="utf-8")
    assert not read_run_info(run).is_intact


def test_run_json_names_the_commit_alone(run, info):
    write_provenance(run, info.model_copy(update={"git": GitState(commit="a" * 40)}))
    assert json.loads(run.info.read_bytes())["git"] == {"commit": "a" * 40}
    assert read_run_info(run).is_intact


def test_a_run_json_of_a_version_with_fewer_keys_is_still_intact(run, info):
    """Its checksum is of the fields that it has; a changed one is noticed."""
    newer = {"checksum": True, "test": True, "config": {"data": {"test"}}}
    old = info.model_dump_json(exclude=newer)
    record = {**json.loads(old), "checksum": hashlib.sha256(old.encode()).hexdigest()}
    run.info.write_text(json.dumps(record), encoding="utf-8")
    assert read_run_info(run).test == ()
    assert read_run_info(run).is_intact
    for change in ({"max_steps": 99}, {"test": []}):
        run.info.write_text(json.dumps({**record, **change}), encoding="utf-8")
        assert not read_run_info(run).is_intact


# Files that cannot be read


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
def test_a_missing_or_foreign_run_json_is_named(run, content):
    run.info.unlink()
    if content is not None:
        run.info.write_text(content)
    with pytest.raises(CheckpointError, match=r"run\.json: cannot be read"):
        read_run_info(run)
