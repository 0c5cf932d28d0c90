"""Weights of training files in a config: read with the paths, written with them, and compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from convo_cli.config.load import apply_overrides, build_config, dump_config, load_config
from convo_cli.config.reference import config_yaml
from convo_cli.config.schema import RunConfig

TRAIN = ["a.jsonl", {"path": "b.jsonl", "weight": 3}, {"path": "c.jsonl", "weight": 0.5}]


def config_of(train: object) -> RunConfig:
    values = {"data": {"train": train}, "model": {"scratch": {}}, "training": {"max_steps": 1}}
    return build_config(values, "a test")


def test_a_config_with_weights_reads_back_as_it_was(tmp_path: Path) -> None:
    config, path = config_of(TRAIN), tmp_path / "config.yaml"
    assert config.data.train == ("a.jsonl", "b.jsonl", "c.jsonl")
    assert config.data.weights == (1, 3, 0.5)
    for text in (dump_config(config), config_yaml(config, [], {}), config.model_dump_json()):
        path.write_text(text)
        assert load_config(path) == config
        assert load_config(path).data.weights == (1, 3, 0.5)
    assert RunConfig.model_validate_json(config.model_dump_json()).data.weights == (1, 3, 0.5)
    assert RunConfig.model_validate(config.model_dump(mode="json")) == config


def test_a_config_without_weights_is_written_as_before() -> None:
    train = config_of(["a.jsonl", {"path": "b.jsonl", "weight": 1}]).model_dump(mode="json")
    assert train["data"]["train"] == ["a.jsonl", "b.jsonl"]


def test_other_weights_are_another_config_and_other_files_have_none() -> None:
    config = config_of(TRAIN)
    assert config != config_of(["a.jsonl", "b.jsonl", "c.jsonl"])
    assert config.data.of(["x", "y"]).weights == (1, 1)
    changed = apply_overrides(config, ["data.train=[b.jsonl, {path: a.jsonl, weight: 2}]"])
    assert changed.data.weights == (1, 2)
    assert apply_overrides(config, ["seed=7"]).data.weights == (1, 3, 0.5)


def test_paths_of_weights_begin_at_the_home_folder_and_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert config_of([{"path": "~/a.jsonl", "weight": 2}]).data.train == ("/home/ada/a.jsonl",)
    (tmp_path / "runs").mkdir()
    (tmp_path / "a.jsonl").touch()
    written = tmp_path / "runs" / "config.yaml"
    text = dump_config(config_of([{"path": "../a.jsonl", "weight": 2}]))
    written.write_text(f"# SHA-256 of what follows: 0\n{text}")
    assert load_config(written).data.train == (str(tmp_path / "a.jsonl"),)
