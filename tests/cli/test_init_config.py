from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from convo_cli.cli.app import main
from convo_cli.config.load import load_config
from convo_cli.config.presets import PRESETS, SCRATCH
from convo_cli.config.reference import commented_yaml, json_schema

ROOT = Path(__file__).parents[2]
PATIENCE = "evaluation.early_stopping.patience needs data.validation"


class Result(NamedTuple):
    code: int
    out: str
    err: str


Convo = Callable[..., Result]


@pytest.fixture
def convo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> Convo:
    """Runs `convo init-config` in a folder of its own, on 80 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["convo", "init-config", *arguments])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        out, err = capsysbinary.readouterr()
        return Result(code, out.decode("utf-8"), err.decode("utf-8"))

    return run


def test_without_options_stdout_is_the_default_preset_and_stderr_is_empty(convo: Convo) -> None:
    assert convo() == Result(0, commented_yaml(SCRATCH), "")


@pytest.mark.parametrize("name", PRESETS)
def test_each_preset_is_written(convo: Convo, name: str) -> None:
    assert convo("--preset", name) == Result(0, commented_yaml(PRESETS[name]), "")


def test_a_file_is_written_as_utf_8_with_line_feeds_and_stdout_stays_empty(convo: Convo) -> None:
    assert convo("-o", "config.yaml") == Result(0, "", "Wrote config.yaml\n")
    assert Path("config.yaml").read_bytes() == commented_yaml(SCRATCH).encode("utf-8")
    assert load_config(Path("config.yaml")) == SCRATCH.config()


def test_quiet_writes_without_a_word(convo: Convo) -> None:
    assert convo("-o", "config.yaml", "--quiet") == Result(0, "", "")


def test_the_schema_lies_where_the_yaml_looks_for_it(convo: Convo) -> None:
    first_line = convo().out.splitlines()[0]
    name = first_line.partition("$schema=./")[2]
    assert convo("--schema", "-o", name).code == 0
    assert json.loads(Path(name).read_text()) == json_schema()
    assert convo("--schema").out == Path(name).read_text()


def test_the_presets_are_listed_one_a_line(convo: Convo) -> None:
    lines = convo("--list-presets").out.splitlines()
    assert [line.split()[0] for line in lines] == list(PRESETS)
    assert all(
        preset.description in line for preset, line in zip(PRESETS.values(), lines, strict=True)
    )


def test_the_users_files_take_the_place_of_both_files_of_the_preset(convo: Convo) -> None:
    convo(
        "--train", "a.jsonl", "--train", "é, b.jsonl", "--validation", "c.jsonl", "-o", "both.yaml"
    )
    data = load_config(Path("both.yaml")).data
    assert (data.train, data.validation) == (("a.jsonl", "é, b.jsonl"), ("c.jsonl",))
    convo("--train", "a.jsonl", "-o", "one.yaml")
    assert load_config(Path("one.yaml")).data.validation == ()


def envelope(result: Result) -> dict[str, Any]:
    assert result.out.count("\n") == 1
    loaded: dict[str, Any] = json.loads(result.out)
    assert (loaded["json_version"], loaded["command"]) == (1, "init-config")
    return loaded


def test_json_has_the_config_as_values_and_as_yaml(convo: Convo) -> None:
    printed = envelope(convo("--preset", "gpt2", "--json"))
    preset = PRESETS["gpt2"]
    assert printed["preset"] == "gpt2"
    assert printed["config"] == preset.config().model_dump(mode="json")
    assert printed["yaml"] == commented_yaml(preset)
    assert printed["path"] is None
    assert envelope(convo("--json", "-o", "config.yaml"))["path"] == "config.yaml"


def test_json_has_the_presets_and_the_schema(convo: Convo) -> None:
    assert envelope(convo("--list-presets", "--json"))["presets"] == [
        {"name": preset.name, "description": preset.description} for preset in PRESETS.values()
    ]
    assert envelope(convo("--schema", "--json"))["schema"] == json_schema()


@pytest.mark.parametrize(
    ("arguments", "err"),
    [
        (
            ["--preset", "gpt"],
            (
                f"error: --preset gpt: no such preset; there are {', '.join(PRESETS)}\nhint: did you "
                "mean --preset gpt2?\n"
            ),
        ),
        (
            ["--schema", "--list-presets"],
            "error: --schema and --list-presets: only one at a time\n",
        ),
        (
            ["--schema", "--preset", "gpt2"],
            "error: --schema and --list-presets take no --preset, --train or --validation\n",
        ),
        (["--force"], "error: --force needs a file to replace\nhint: add -o FILE\n"),
        (
            ["--validation", "b.jsonl"],
            (
                "error: --validation needs --train: both files of the preset are replaced\nhint: add "
                "--train FILE\n"
            ),
        ),
        (
            ["--preset", "multi-turn-gpt2", "--train", "a.jsonl"],
            f"error: preset multi-turn-gpt2: {PATIENCE}\nhint: add --validation FILE\n",
        ),
        (
            ["--train", "\udcff.jsonl"],
            "error: a config cannot hold a file name that is not UTF-8 text\n",
        ),
        (
            ["--train", "a\x1b[31m"],
            "error: a config cannot hold a file name that is not UTF-8 text\n",
        ),
        (
            ["-o", "no/config.yaml"],
            "error: no/config.yaml: there is no folder no\nhint: mkdir -p no\n",
        ),
        (
            ["-o", "."],
            "error: .: not a regular file, but a directory\nhint: choose another name with -o\n",
        ),
    ],
)
def test_a_wrong_use_exits_2_with_these_words(convo: Convo, arguments: list[str], err: str) -> None:
    assert convo(*arguments) == Result(2, "", err)


def test_an_existing_file_is_replaced_only_by_force(convo: Convo) -> None:
    Path("config.yaml").write_text("mine")
    refused = convo("-o", "config.yaml")
    assert refused == Result(
        2,
        "",
        "error: config.yaml: exists already\nhint: choose another name with -o, or add --force\n",
    )
    assert Path("config.yaml").read_text() == "mine"
    assert convo("-o", "config.yaml", "--force").code == 0
    assert load_config(Path("config.yaml")) == SCRATCH.config()


@pytest.mark.parametrize("force", [[], ["--force"]])
@pytest.mark.parametrize("target", ["theirs.yaml", "missing.yaml"])
def test_nothing_is_written_through_a_symbolic_link(
    convo: Convo, force: list[str], target: str
) -> None:
    Path("theirs.yaml").write_text("theirs")
    Path("config.yaml").symlink_to(target)
    assert convo("-o", "config.yaml", *force) == Result(
        2,
        "",
        "error: config.yaml: not a regular file, but a symbolic link\nhint: choose another name "
        "with -o\n",
    )
    assert Path("theirs.yaml").read_text() == "theirs"
    assert not Path("missing.yaml").exists()


def test_a_disk_that_refuses_exits_7_and_leaves_what_was_there(convo: Convo) -> None:
    name = f"{'n' * 300}.yaml"
    result = convo("-o", name)
    assert (result.code, result.out) == (7, "")
    assert result.err.startswith(
        f"error: {name}: File name too long\nhint: choose another place with -o\n"
    )
    assert list(Path().iterdir()) == []


def test_help_has_an_example_that_works(convo: Convo) -> None:
    text = " ".join(convo("--help").out.split())
    example = "convo init-config --preset gpt2 --train my.jsonl -o config.yaml"
    assert f"Example: {example}" in text
    assert convo(*example.split()[2:]).code == 0


def run_convo(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        check=True,
    )


def test_the_bytes_are_utf_8_whatever_the_locale() -> None:
    train = "é.jsonl"
    result = run_convo(
        "-m",
        "convo_cli",
        "init-config",
        "--train",
        train,
        PYTHONIOENCODING="latin-1",
        PYTHONUTF8="1",
    )
    assert f"train: [{train}]" in result.stdout.decode("utf-8")
    assert b"\r" not in result.stdout


def test_no_model_library_is_imported() -> None:
    script = (
        "import sys; sys.argv = ['convo', 'init-config', '--quiet']\n"
        "from convo_cli.cli.app import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'sentencepiece', 'numpy'} & set(sys.modules)), "
        "file=sys.stderr)"
    )
    assert run_convo("-c", script).stderr.decode().strip() == "[]"


def test_it_costs_less_than_a_second_of_cpu() -> None:
    def cpu_seconds() -> float:
        before = os.times()
        run_convo("-m", "convo_cli", "init-config")
        after = os.times()
        return (
            after.children_user
            + after.children_system
            - before.children_user
            - before.children_system
        )

    start = time.monotonic()
    best = min(cpu_seconds() for _ in range(3))
    assert best < 1.0, f"{best:.2f} s of CPU, {time.monotonic() - start:.1f} s for three runs"
