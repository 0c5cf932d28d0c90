from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from convo_cli.config.keys import Key, config_keys
from convo_cli.config.load import apply_overrides, dump_config, load_config
from convo_cli.config.presets import PRESETS, SCRATCH
from convo_cli.config.reading.building import NOT_TEXT
from convo_cli.config.reference import commented_yaml
from convo_cli.config.schema import LoraSettings, RunConfig
from convo_cli.errors import ConfigError, ProblemDetail
from tests.cases import num_examples

GOOD = "data:\n  train: a.jsonl\nmodel:\n  scratch: {}\ntraining:\n  max_steps: 30\n"
LEAVES = [key for key in config_keys().values() if not key.is_section]


def refused() -> list[Any]:
    """The blocks of refused.txt as (config file, overrides, expected lines)."""
    blocks = Path(__file__).with_name("refused.txt").read_text(encoding="utf-8").split("\n=== ")[1:]
    params = []
    for block in blocks:
        name, *lines = block.splitlines()
        config = "".join(f"{line}\n" for line in lines if not line.startswith(("$ ", "> ")))
        overrides = [line[2:] for line in lines if line.startswith("$ ")]
        expected = [line[2:] for line in lines if line.startswith("> ")]
        params.append(pytest.param(config.replace("@good\n", GOOD), overrides, expected, id=name))
    return params


@pytest.fixture
def config_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("config.yaml")


def message_of(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return caught.value.message


def load_text(path: Path, text: str, *overrides: str) -> RunConfig:
    path.write_text(text, encoding="utf-8", newline="")
    return load_config(path, overrides)


@pytest.mark.parametrize(("text", "overrides", "expected"), refused())
def test_a_wrong_config_is_refused_with_these_words(
    config_path: Path, text: str, overrides: list[str], expected: list[str]
) -> None:
    config_path.write_text(text, encoding="utf-8")
    assert message_of(config_path, *overrides).splitlines() == expected


@pytest.mark.parametrize(("text", "overrides", "expected"), refused())
def test_each_problem_of_a_wrong_config_is_an_object_with_what_its_line_says(
    config_path: Path, text: str, overrides: list[str], expected: list[str]
) -> None:
    config_path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(config_path, overrides)
    lines = expected[1:] if re.match(r"\d+ problems", expected[0]) else expected
    assert len(caught.value.problems) == len(lines)
    for line, problem in zip(lines, caught.value.problems, strict=True):
        if problem.file is None:
            assert line.startswith(f"--set {problem.key or ''}")
        else:
            assert line.startswith(":".join(map(str, filter(None, place_of(problem)))))
        assert f"{problem.key or ''}: {problem.message}" in line
        if problem.hint != caught.value.hint:
            assert problem.hint is None or line.endswith(f"; {problem.hint}")


def place_of(problem: ProblemDetail) -> tuple[str | int | None, ...]:
    return problem.file, problem.line, problem.column


def test_the_table_of_wrong_configs_is_long_enough() -> None:
    assert len(refused()) >= 100


@pytest.mark.parametrize("key", LEAVES, ids=lambda key: key.path)
def test_a_wrong_value_of_any_key_is_shown_at_its_own_line_and_column(
    config_path: Path, key: Key
) -> None:
    text = commented_yaml(SCRATCH)
    if key.section == "model.lora":
        keys = LoraSettings().model_dump().items()
        lora = "".join(f"    {name}: {value}\n" for name, value in keys)
        text = text.replace("lora: null\n", f"lora:\n{lora}")
    lines = text.splitlines()
    number, column = _line_of(key.path, lines)
    wrong, shown = ("[2.5]", "[2.5]") if key.is_mapping else ("{no: such}", '{"no": "such"}')
    lines[number - 1] = lines[number - 1][: column - 1] + wrong
    config_path.write_text("\n".join(lines), encoding="utf-8")
    assert message_of(config_path).startswith(
        f"config.yaml:{number}:{column} {key.path}: found {shown}; "
    )


def _line_of(path: str, lines: list[str]) -> tuple[int, int]:
    """Return line and column of a value in a commented config, found by indentation."""
    open_sections: list[str] = []
    for number, line in enumerate(lines, start=1):
        if match := re.match(r"( *)(\w+):( ?)", line):
            indent = len(match[1]) // 2
            open_sections = [*open_sections[:indent], match[2]]
            if ".".join(open_sections) == path:
                return number, match.end() + 1
    raise AssertionError(path)


def test_an_override_with_a_control_character_is_refused(config_path: Path) -> None:
    config_path.write_text(GOOD)
    assert (
        message_of(config_path, "name=\0")
        == '--set name: "\\u0000" is not a YAML value; put text in quotes'
    )


def test_an_override_wins_over_the_file_and_the_last_over_the_first(config_path: Path) -> None:
    config = load_text(config_path, GOOD, "training.max_steps=5", "seed=1", "seed=2", "name=no")
    assert (config.training.max_steps, config.seed, config.name) == (5, 2, "no")


def test_an_override_makes_the_sections_it_needs(config_path: Path) -> None:
    bare = "data: {train: a}\nmodel: {scratch: null}\ntraining: {max_steps: 3}\n"
    config = load_text(
        config_path, bare, "model.scratch.layers=4", "evaluation.early_stopping.min_delta=0.5"
    )
    assert config.model.scratch is not None
    assert (config.model.scratch.layers, config.evaluation.early_stopping.min_delta) == (4, 0.5)


def test_an_override_repairs_what_it_replaces_in_the_file(config_path: Path) -> None:
    config = load_text(
        config_path, GOOD.replace("a.jsonl", "[a, 5]") + "seed: x\n", "data.train=[b, c]", "seed=3"
    )
    assert (config.data.train, config.seed) == (("b", "c"), 3)


def test_an_override_can_switch_the_origin_of_the_model_with_null(config_path: Path) -> None:
    config = load_text(config_path, GOOD, "model.pretrained=gpt2", "model.scratch=null")
    assert (config.model.pretrained, config.model.scratch) == ("gpt2", None)


def test_problems_of_file_and_overrides_come_together_with_the_overrides_last(
    config_path: Path,
) -> None:
    config_path.write_text(GOOD + "seed: -1\n")
    assert message_of(config_path, "a", "training.batch_size=0").splitlines() == [
        "3 problems in the configuration:",
        "config.yaml:7:7 seed: found -1; allowed: a whole number, 0 to 9,223,372,036,854,775,807",
        "--set a: not of the form KEY=VALUE, such as training.max_steps=500",
        "--set training.batch_size: found 0; allowed: a whole number, 1 to 1,000,000, or null",
    ]


def test_overrides_of_a_loaded_config_are_checked_with_it_as_a_whole() -> None:
    config = SCRATCH.config()
    assert apply_overrides(config, ["training.max_steps=500"]).training.max_steps == 500
    assert apply_overrides(config, []) == config
    with pytest.raises(ConfigError) as caught:
        apply_overrides(config, ["training.epochs=2"])
    assert caught.value.message == (
        "--set training.epochs: set exactly one of training.max_steps and training.epochs "
        "(see training.max_steps, the run's config); add --set training.max_steps=null"
    )


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-4", 1e-4),
        ("1E-4", 1e-4),
        ("5", 5.0),
        (".5", 0.5),
        ("+0.5", 0.5),
        ("1_0", 10.0),
        ("0x5", 5.0),
    ],
)
def test_numbers_are_read_as_yaml_1_2_has_them(
    config_path: Path, written: str, value: float
) -> None:
    rate = load_text(config_path, GOOD + f"  learning_rate: {written}\n").training.learning_rate
    assert (rate, type(rate)) == (value, float)


@pytest.mark.parametrize(
    "text", ["no", "on", "yes", "1:30", "2024-01-01", "=", "x~", "0b2", "1.2.3", "tRue"]
)
def test_what_yaml_1_1_would_turn_into_something_else_stays_text(
    config_path: Path, text: str
) -> None:
    assert load_text(config_path, f"output_dir: {text}\n{GOOD}").output_dir == text


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_line_end_and_a_byte_order_mark_are_fine(config_path: Path, end: str) -> None:
    assert load_text(config_path, "\ufeff" + GOOD.replace("\n", end)) == load_text(
        config_path, GOOD
    )
    config_path.write_text(
        "\ufeff" + (GOOD + "seed: x\n").replace("\n", end), encoding="utf-8", newline=""
    )
    assert message_of(config_path).startswith("config.yaml:7:7 seed")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            GOOD.encode("utf-16"),
            "config.yaml: UTF-16 text, which PowerShell's > writes; a config is UTF-8",
        ),
        (GOOD.encode("utf-32"), "config.yaml: UTF-32 text; a config is UTF-8"),
        (
            GOOD.encode("utf-16-be"),
            "config.yaml:1:1: control character U+0000; a config is plain text",
        ),
        (b"name: a\noutput_dir: \xe9t\xe9\n", "config.yaml:2:13: byte 0xe9 is not UTF-8 text"),
        (b"name: a\xed\xa0\x80\n", "config.yaml:1:8: byte 0xed is not UTF-8 text"),
        (b"name: a\x1b[31m\n", "config.yaml:1:8: control character U+001B; a config is plain text"),
        (b"\x1f\x8b\x08\x00\x00", "config.yaml:1:2: byte 0x8b is not UTF-8 text"),
        (
            b"#" * (2**20 + 1),
            "config.yaml: larger than 1,048,576 bytes; a config has a few thousand",
        ),
        (
            b"a: [" + b"x, " * 30_000,
            "config.yaml: more than 20,000 keys and values; this is not a config",
        ),
    ],
)
def test_a_file_that_is_no_text_is_named_as_what_it_is(
    config_path: Path, content: bytes, expected: str
) -> None:
    config_path.write_bytes(content)
    assert message_of(config_path) == expected


def test_utf_16_comes_with_the_way_to_avoid_it(config_path: Path) -> None:
    config_path.write_bytes(GOOD.encode("utf-16"))
    with pytest.raises(ConfigError) as caught:
        load_config(config_path)
    assert caught.value.hint == "write it without >: convo init-config -o config.yaml"


def test_a_missing_file_a_directory_and_an_unreadable_name_are_named(config_path: Path) -> None:
    assert message_of(config_path) == "config.yaml: no such file"
    assert message_of(Path(".")) == ".: this is a directory, not a config file"
    assert message_of(Path("a\0b")) == "a\0b: cannot be read: embedded null byte"
    config_path.write_text(GOOD)
    assert message_of(config_path / "x").startswith("config.yaml/x: cannot be read: ")


def test_a_run_directory_gets_the_hint_where_its_config_is(config_path: Path) -> None:
    config_path.write_text(GOOD)
    with pytest.raises(ConfigError) as caught:
        load_config(Path("."))
    assert caught.value.hint == "try config.yaml"


def test_however_many_problems_the_message_stays_short(config_path: Path) -> None:
    config_path.write_text(GOOD + "".join(f"{'k' * 900}{n}: {'v' * 900}\n" for n in range(500)))
    lines = message_of(config_path).splitlines()
    assert lines[0] == "500 problems in the configuration:"
    assert lines[-1] == "and 475 more"
    assert len(lines) == 27
    assert max(map(len, lines)) < 400


@pytest.mark.parametrize(
    "text",
    [
        "[" * 2**19,
        "- " * 2**18,
        "{a: " * 2**17,
        "? " * 2**18,
        "a: '" + "x\n" * 2**19,
        "\n" * 2**20,
        "a: &" + "b" * 2**19,
    ],
    ids=lambda text: text[:6].encode("unicode_escape").decode(),
)
def test_a_hostile_file_is_refused_in_a_few_seconds(config_path: Path, text: str) -> None:
    config_path.write_text(text)
    start = time.process_time()
    message = message_of(config_path)
    assert time.process_time() - start < 5
    assert len(message) < 1000


def only_config_errors(path: Path, text: str, *overrides: str) -> None:
    path.write_text(text, encoding="utf-8", errors="surrogatepass", newline="")
    message = ""
    try:
        assert isinstance(load_config(path, overrides), RunConfig)
    except ConfigError as error:
        message = error.message
    assert all(len(line) < 500 for line in message.splitlines())


@pytest.fixture(scope="module")
def scratch_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config") / "config.yaml"


tokens = st.sampled_from(
    [
        *(
            "a",
            "b: ",
            "\n",
            "\n  ",
            "- ",
            "? ",
            ": ",
            "{",
            "}",
            "[",
            "]",
            ",",
            "&x ",
            "*x ",
            "!t ",
            "!!int ",
            "!<u> ",
        ),
        *(
            "%YAML 1.1\n",
            "%TAG ! tag:x\n",
            "%YAML\n",
            "---\n",
            "...\n",
            "|\n",
            ">+2\n",
            "'",
            '"',
            "\\",
            "\\UFFFFFFFF",
        ),
        *(
            "\\ud800",
            " #",
            "1e5",
            "_",
            ".",
            "~",
            "=",
            "<<: ",
            "\t",
            "\r",
            "\u2028",
            "\ufeff",
            "@",
            "`",
        ),
    ]
)


@settings(max_examples=num_examples(300), deadline=None)
@given(text=st.lists(tokens, max_size=14).map("".join))
@example(text='"\\UFFFFFFFF"')
@example(text='a: "\\U00110000"')
def test_any_row_of_yaml_tokens_is_a_config_or_a_config_error(
    scratch_path: Path, text: str
) -> None:
    only_config_errors(scratch_path, text)


@settings(max_examples=num_examples(150), deadline=None)
@given(text=st.text(st.characters() | st.sampled_from(" \n:-[]{}#&*!|>'\"%@`,?")))
def test_any_text_is_a_config_or_a_config_error(scratch_path: Path, text: str) -> None:
    only_config_errors(scratch_path, text)


names = st.sampled_from([key.name for key in config_keys().values()]) | st.text(max_size=8)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=5),
    max_leaves=20,
)


@settings(max_examples=num_examples(150), deadline=None)
@given(tree=st.dictionaries(names, trees, max_size=8))
def test_any_yaml_is_a_config_or_a_config_error(scratch_path: Path, tree: dict[str, Any]) -> None:
    stream = io.StringIO()
    YAML(typ="safe", pure=True).dump(tree, stream)
    only_config_errors(scratch_path, stream.getvalue())


@settings(max_examples=num_examples(100), deadline=None)
@given(data=st.data())
def test_a_damaged_config_is_a_config_or_a_config_error(
    scratch_path: Path, data: st.DataObject
) -> None:
    lines = dump_config(SCRATCH.config()).splitlines()
    for _ in range(data.draw(st.integers(1, 4))):
        number = data.draw(st.integers(0, len(lines) - 1))
        key, colon, _value = lines[number].partition(":")
        change = data.draw(st.sampled_from(["drop", "double", "indent", "outdent", "value"]))
        if change == "drop" and len(lines) > 1:
            del lines[number]
        elif change == "double":
            lines.insert(number, lines[number])
        elif change == "value":
            lines[number] = f"{key}{colon} {data.draw(scalars)}"
        else:
            lines[number] = f" {lines[number]}" if change == "indent" else lines[number].lstrip()
    only_config_errors(scratch_path, "\n".join(lines))


@settings(max_examples=num_examples(200), deadline=None)
@given(key=st.sampled_from(list(config_keys())) | st.text(max_size=10), value=st.text(max_size=20))
@example(key="name", value="\ud800")
@example(key="data.train", value="[a, {b: c}]")
def test_any_override_gives_a_config_or_a_config_error(
    scratch_path: Path, key: str, value: str
) -> None:
    only_config_errors(scratch_path, GOOD, f"{key}={value}")


letters = st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from(
    "\n\t\r #:-?&*!|>'\"%@`[]{},"
)
texts = st.text(letters, min_size=1, max_size=15) | st.sampled_from(
    [
        "no",
        "1e-4",
        "null",
        "~",
        "2020-01-01",
        "a: b",
        "x # y",
        "'q'",
        '"',
        "- a",
        " a ",
        "a\nb",
        "=",
        "<<",
        "!x",
        "*a",
    ]
)


def values_of(key: Key) -> st.SearchStrategy[Any]:
    """Values of the right type; some are out of range."""
    by_type: dict[str, st.SearchStrategy[Any]] = {
        "integer": st.integers(0, 2000),
        "number": st.floats(0, 1) | st.floats(allow_nan=False, allow_infinity=False),
        "boolean": st.booleans(),
        "null": st.none(),
        "pair": st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)).map(list),
        "mapping": st.dictionaries(
            st.sampled_from(["style", "enable_thinking"]),
            st.none() | st.booleans() | st.integers(-9, 9) | st.lists(texts, max_size=2),
            max_size=2,
        ),
        "array": st.lists(texts, min_size=1, max_size=3),
        "string": st.sampled_from(key.choices) if key.choices else texts,
    }
    return st.one_of(*[by_type[name] for name in sorted(key.types)])


@st.composite
def configs(draw: st.DrawFn) -> RunConfig:
    """A preset with some keys changed, as far as it is valid."""
    tree = draw(st.sampled_from(list(PRESETS.values()))).config().model_dump(mode="json")
    for key in draw(st.lists(st.sampled_from(LEAVES), max_size=6)):
        *sections, name = key.path.split(".")
        section = tree
        for part in sections:
            section = section[part] or {}
        section[name] = draw(values_of(key))
    try:
        config = RunConfig.model_validate(tree)
    except ValueError:
        assume(False)
    assume(not NOT_TEXT.search(json.dumps(config.model_dump(mode="json"), ensure_ascii=False)))
    return config


@settings(max_examples=num_examples(100), deadline=None)
@given(config=configs())
def test_a_dumped_config_is_read_back_equal(scratch_path: Path, config: RunConfig) -> None:
    assert load_text(scratch_path, dump_config(config)) == config


@settings(max_examples=num_examples(100), deadline=None)
@given(config=configs(), key=st.sampled_from(LEAVES))
def test_setting_a_key_to_the_value_it_has_changes_nothing(config: RunConfig, key: Key) -> None:
    value: Any = config.model_dump(mode="json")
    for part in key.path.split("."):
        value = (value or {}).get(part)
    assume(not (value is None and key.path.startswith(("model.scratch.", "model.lora."))))
    assert (
        apply_overrides(config, [f"{key.path}={json.dumps(value, ensure_ascii=False)}"]) == config
    )


def test_a_config_is_loaded_without_torch_or_a_terminal_library(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(GOOD)
    script = (
        "import sys, pathlib; from convo_cli.config.load import load_config; "
        "load_config(pathlib.Path('config.yaml'));"
        "print(sorted({'torch', 'transformers', 'rich', 'typer', 'numpy'} & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "[]"


def test_half_of_a_surrogate_pair_in_a_key_is_refused_with_its_place(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text('data: {train: t.jsonl}\n"a\\ud83db": 1\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"c\.yaml:2:1: a key must be plain text"):
        load_config(path)
