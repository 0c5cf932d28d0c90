from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convo_cli.config.load import dump_config, load_config
from convo_cli.config.presets import PRESETS
from convo_cli.config.reading.config_text import parse_config
from convo_cli.config.reading.json_source import parse_json
from convo_cli.config.reading.yaml_source import parse_yaml
from convo_cli.errors import ConfigError
from tests.cases import num_examples

MINIMAL = {"data": {"train": "a.jsonl"}, "model": {"scratch": {}}, "training": {"max_steps": 30}}


@pytest.mark.parametrize("indent", [None, 2, "\t"])
@pytest.mark.parametrize("name", PRESETS)
def test_a_config_written_as_json_is_read_as_the_same_config(
    tmp_path: Path, name: str, indent: int | str | None
) -> None:
    config = PRESETS[name].config()
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config.model_dump(mode="json"), indent=indent), encoding="utf-8")
    assert load_config(path) == config


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    "text",
    [
        '{"name"\n:\n"a"}',
        '\t{\n\t\t"name" :\t"a"\t}\n\n',
        '\ufeff{"name": "a"}',
        '{"name": "\\u0061"}',
        '{"n\\u0061me": "a"}',
        '# a comment of YAML\n{"name": "a"}',
        '{"name": "a",}',
        "{name: a}",
        "{'name': a}",
    ],
)
def test_json_and_flow_yaml_in_every_form_are_read(tmp_path: Path, text: str, end: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text.replace("\n", end), encoding="utf-8", newline="")
    overrides = ["data.train=a.jsonl", "training.max_steps=30", "model.scratch.layers=2"]
    assert load_config(path, overrides).name == "a"


def test_the_characters_of_a_surrogate_pair_become_one(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    for is_ascii in (True, False):
        text = json.dumps({**MINIMAL, "output_dir": "runs 🙂"}, ensure_ascii=is_ascii)
        path.write_text(text, encoding="utf-8")
        assert load_config(path).output_dir == "runs 🙂"


def test_a_resolved_config_is_the_same_from_json_and_from_yaml(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(MINIMAL))
    config = load_config(tmp_path / "config.json")
    (tmp_path / "config.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "config.yaml") == config


plain = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)
scalars = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | plain
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain, inner, max_size=3)
)


@settings(max_examples=num_examples(150), deadline=None)
@given(
    value=st.dictionaries(plain, values, max_size=4),
    indent=st.sampled_from([None, 0, 2]),
    is_ascii=st.booleans(),
)
def test_json_is_read_as_json_reads_it_and_with_the_places_of_yaml(
    value: object, indent: int | None, is_ascii: bool
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=is_ascii)
    parsed = parse_json(text, "c")
    assert parsed.value == value
    by_yaml = parse_yaml(text, "c")
    if by_yaml.value == value:
        assert (parsed.keys, parsed.values) == (by_yaml.keys, by_yaml.values)


pieces = [
    '{"a":',
    '{"',
    '"',
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "1",
    "-",
    "nul",
    "null",
    "\\u",
    "\\ud83d",
]


@settings(max_examples=num_examples(300), deadline=None)
@given(
    text=st.lists(st.sampled_from([*pieces, " ", "\n", "\t", "//", "é"]), max_size=10).map("".join)
)
def test_any_row_of_json_tokens_is_a_mapping_or_a_config_error(text: str) -> None:
    message = ""
    try:
        parsed = parse_config("{" + text, "c")
        assert isinstance(parsed.value, dict)
    except ConfigError as error:
        message = error.message
    assert len(message) < 500


@pytest.mark.parametrize(
    "text", ['{"a": ' * 10**5, '{"a": ' + "[" * 10**5, '{"a": [' + "1," * 10**5]
)
def test_a_hostile_json_file_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"nested more than 20 levels deep|more than 20,000 keys"):
        parse_config(text, "c")
