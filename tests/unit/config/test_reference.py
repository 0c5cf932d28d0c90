from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from convo_cli.config.keys import config_keys
from convo_cli.config.load import load_config
from convo_cli.config.presets import PRESETS, SCRATCH, Preset
from convo_cli.config.reading.building import NOT_TEXT
from convo_cli.config.reference import SCHEMA_FILE, WIDTH, commented_yaml, json_schema
from tests.cases import num_examples

every_preset = pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda preset: preset.name)
SCRATCH_TEXT = commented_yaml(SCRATCH)


def plain(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


OPTIONAL = ("model.scratch", "model.lora")
"""Sections that may be null, which are then written without their keys."""


@every_preset
def test_the_yaml_loads_to_exactly_the_preset(preset: Preset, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(commented_yaml(preset), encoding="utf-8")
    assert load_config(tmp_path / "config.yaml") == preset.config()


@every_preset
def test_every_key_is_written_in_the_order_of_the_schema(preset: Preset) -> None:
    text, written = commented_yaml(preset), []

    def walk(section: dict[str, Any], prefix: str) -> None:
        for name, value in section.items():
            written.append(prefix + name)
            if isinstance(value, dict):
                walk(value, f"{prefix}{name}.")

    walk(plain(text), "")
    left_out = []
    for section in OPTIONAL:
        inside = [path for path in config_keys() if path.startswith(f"{section}.")]
        if not set(inside) & set(written):
            left_out += inside
            names = ", ".join(path.rpartition(".")[2] for path in inside)
            assert f"Its keys: {names}." in _comments(text)
    assert written == [path for path in config_keys() if path not in left_out]
    assert ("model.scratch.layers" in written) is ("layers:" in text)


@every_preset
def test_every_key_is_explained_in_the_words_of_the_schema(preset: Preset) -> None:
    comments = _comments(commented_yaml(preset))
    wanted = [
        key
        for key in config_keys().values()
        if key.section not in OPTIONAL or (preset == SCRATCH and key.section == "model.scratch")
    ]
    assert [key.path for key in wanted if key.doc not in comments] == []


def _comments(text: str) -> str:
    """The whole-line comments as one text, as they were before they were wrapped."""
    lines = (line.strip() for line in text.splitlines())
    return " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))


@pytest.mark.parametrize(
    ("key", "beside"),
    [
        ("seed", "0 to 9,223,372,036,854,775,807"),
        ("vocab_size", "300 to 1,000,000"),
        ("character_coverage", "0.98 to 1"),
        ("learning_rate", "above 0, at most 10"),
        ("schedule", "constant, linear or cosine"),
        ("batch_size", "1 to 1,000,000"),
        ("attention_dropout", "at least 0, below 1"),
        ("template", ""),
        ("deterministic", ""),
    ],
)
def test_a_range_or_choice_that_the_explanation_lacks_stands_beside_the_value(
    key: str, beside: str
) -> None:
    line = next(line for line in SCRATCH_TEXT.splitlines() if line.strip().startswith(f"{key}:"))
    assert line.partition("  # ")[2] == beside


@every_preset
def test_it_reads_well(preset: Preset) -> None:
    text = commented_yaml(preset)
    lines = text.splitlines()
    assert text.isascii()
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert max(map(len, lines)) <= WIDTH
    assert all(line == line.rstrip() for line in lines)
    assert [
        line for line in lines if re.search(r"\S #", line) and not line.lstrip().startswith("#")
    ] == []
    top_sections = [
        key.name for key in config_keys().values() if key.is_section and not key.section
    ]
    for name in top_sections:
        before = lines[: lines.index(f"{name}:")]
        while before[-1].startswith("#"):
            before.pop()
        assert before[-1] == "", f"a blank line before {name}"
    assert text.count("\n\n") == len(top_sections) + 1
    assert "\n\n\n" not in text


@every_preset
def test_the_head_says_what_it_is_and_how_an_editor_helps(preset: Preset) -> None:
    text = commented_yaml(preset)
    assert text.startswith(f"# yaml-language-server: $schema=./{SCHEMA_FILE}\n")
    assert f"#   convo init-config --schema -o {SCHEMA_FILE}\n" in text
    for sentence in (preset.description, preset.note, preset.data_note):
        assert sentence in _comments(text)


letters = st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from(
    "\n\t\r #:-?&*!|>'\"%@`[]{},"
)
names = st.text(letters, min_size=1, max_size=20).filter(
    lambda name: name != "-" and name[0] != "~" and not NOT_TEXT.search(name)
)


@settings(max_examples=num_examples(50), deadline=None)
@given(train=st.lists(names, min_size=1, max_size=3), validation=st.lists(names, max_size=2))
def test_any_file_names_survive(
    tmp_path_factory: Any, train: list[str], validation: list[str]
) -> None:
    preset = SCRATCH.with_data(train, validation)
    path = tmp_path_factory.getbasetemp() / "names.yaml"
    path.write_text(commented_yaml(preset), encoding="utf-8", newline="\n")
    assert load_config(path) == preset.config()
    assert preset.config().data.train == tuple(train)


@every_preset
def test_the_json_schema_accepts_the_yaml(preset: Preset) -> None:
    jsonschema.validate(plain(commented_yaml(preset)), json_schema())


def test_the_json_schema_is_one_by_its_own_rules() -> None:
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == "convo config"
    jsonschema.Draft202012Validator.check_schema(schema)
    assert json.loads(json.dumps(schema)) == schema


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name:", "nmae:"),
        ("  learning_rate:", "  lr:"),
        ("    min_delta:", "    min_gain:"),
        ("learning_rate: 0.001", "learning_rate: 11"),
        ("schedule: cosine", "schedule: cosin"),
        ("deterministic: true", "deterministic: yes"),
        ("betas: [0.9, 0.95]", "betas: [0.9]"),
        ("train: [sample_data/train.jsonl]", "train: 5"),
        ("name: demo", "name: a/b"),
    ],
)
def test_the_json_schema_refuses_what_the_loader_refuses(old: str, new: str) -> None:
    assert old in SCRATCH_TEXT
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(plain(SCRATCH_TEXT.replace(old, new, 1)), json_schema())


@pytest.mark.parametrize("value", ["a.jsonl", ["a.jsonl", "b.jsonl"]])
def test_the_json_schema_lets_one_file_stand_for_a_list_as_the_loader_does(value: object) -> None:
    tree = plain(SCRATCH_TEXT)
    tree["data"]["train"] = value
    jsonschema.validate(tree, json_schema())
