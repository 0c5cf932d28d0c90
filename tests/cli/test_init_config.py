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
NAMES = ", ".join(PRESETS)
GPT2_HINT = "hint: did you mean --preset gpt2?\n"
PATIENCE = "evaluation.early_stopping.patience needs data.validation or data.validation_split"


class Result(NamedTuple):
    code: int
    out: str
    err: str


Convo = Callable[..., Result]


@pytest.fixture
def convo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> Convo:
    """Runs `convo init-config` in a folder of its own beside the samples, on 80 columns."""
    (tmp_path / "sample_data").symlink_to(ROOT / "sample_data")
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


OTHER_NAME = "hint: choose another name with -o\n"


def test_without_options_stdout_is_the_default_preset_and_stderr_is_empty(convo: Convo) -> None:
    assert convo() == Result(0, commented_yaml(SCRATCH), "")


@pytest.mark.parametrize("name", PRESETS)
def test_each_preset_is_written(convo: Convo, name: str) -> None:
    assert convo("--preset", name) == Result(0, commented_yaml(PRESETS[name]), "")


def test_a_file_is_written_as_utf_8_with_line_feeds_and_stdout_stays_empty(convo: Convo) -> None:
    wrote = "Wrote config.yaml\nWrote convo.schema.json for editors\n"
    assert convo("-o", "config.yaml") == Result(0, "", wrote)
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


def data_file(name: str, num_dialogues: int = 1, text: str = "How are you today?") -> str:
    dialogues = [[f"{text} {number}", "I am fine."] for number in range(num_dialogues)]
    lines = "".join(f"{json.dumps(dialogue, ensure_ascii=False)}\n" for dialogue in dialogues)
    Path(name).write_text(lines, encoding="utf-8")
    return name


def test_a_config_in_a_file_gets_its_schema_beside_it(convo: Convo) -> None:
    Path("folder").mkdir()
    assert convo("-o", "folder/my.yaml").code == 0
    schema = Path("folder/convo.schema.json")
    assert json.loads(schema.read_text()) == json_schema()
    assert convo("--schema").out == schema.read_text()
    assert f"$schema=./{schema.name}" in Path("folder/my.yaml").read_text().splitlines()[0]
    assert [convo().code, {path.name for path in Path().iterdir()}] == [
        0,
        {"folder", "sample_data"},
    ]


def test_an_older_schema_is_updated_and_the_users_file_is_kept(convo: Convo) -> None:
    schema = Path("convo.schema.json")
    schema.write_text(json.dumps({"title": "convo config", "properties": {}}))
    assert convo("-o", "a.yaml").err == f"Wrote a.yaml\nWrote {schema} for editors\n"
    assert json.loads(schema.read_text()) == json_schema()
    for number, foreign in enumerate(('{"title": "mine"}', "[]", "not JSON", "[" * 10**5)):
        schema.write_text(foreign)
        result = convo("-o", f"b{number}.yaml")
        left = f"Left {schema} unchanged: it is not a JSON Schema written by convo"
        assert result == Result(0, "", f"Wrote b{number}.yaml\n{left}\n")
        assert schema.read_text() == foreign


@pytest.mark.parametrize("target", ["theirs.json", "missing.json"])
def test_no_schema_is_written_through_a_symbolic_link(convo: Convo, target: str) -> None:
    Path("theirs.json").write_text(json.dumps({"title": "convo config"}))
    Path("convo.schema.json").symlink_to(target)
    assert "Left convo.schema.json unchanged" in convo("-o", "config.yaml").err
    assert json.loads(Path("theirs.json").read_text()) == {"title": "convo config"}
    assert not Path("missing.json").exists()


def test_a_config_does_not_take_the_name_of_its_schema(convo: Convo) -> None:
    result = convo("-o", "convo.schema.json")
    assert (result.code, list(Path().iterdir())) == (2, [Path("sample_data")])
    assert "convo.schema.json: reserved for the JSON Schema" in result.err


def test_a_config_for_a_file_says_what_was_chosen_and_the_yaml_says_why(convo: Convo) -> None:
    data_file("my.jsonl", 60)
    result = convo("--train", "my.jsonl")
    assert result.err == (
        "sized for 58 dialogues (and 2 held back for validation) in my.jsonl: a vocabulary of 500, "
        "87 steps, batches of 4, 6 epochs\n"
    )
    Path("config.yaml").write_text(result.out)
    config = load_config(Path("config.yaml"))
    assert (config.training.max_steps, config.training.batch_size) == (87, 4)
    assert (config.tokenizer.vocab_size, config.training.warmup_steps) == (500, 8)
    assert config.data.validation_split == 0.05
    assert "# Chosen: 6 epochs.\n  max_steps: 87" in result.out
    assert "# Chosen: no file for validation.\n  validation_split: 0.05" in result.out
    assert convo("--train", "my.jsonl", "-q").err == ""
    printed = envelope(convo("--train", "my.jsonl", "--json"))
    assert printed["sizing"]["values"]["training.max_steps"] == 87
    assert f"{printed['sizing']['summary']}\n" == result.err
    assert envelope(convo("--json"))["sizing"] is None


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("num_dialogues", [1, 2, 9, 1000])
def test_each_preset_is_sized_for_data_of_any_size(
    convo: Convo, name: str, num_dialogues: int
) -> None:
    files = [data_file("a.jsonl", num_dialogues), data_file("b.jsonl", num_dialogues)]
    arguments = ("--train", files[0], "--validation", files[1], "--preset", name)
    assert convo(*arguments, "-o", "config.yaml").code == 0
    training = load_config(Path("config.yaml")).training
    assert training.batch_size is not None
    assert training.batch_size <= num_dialogues
    num_steps = training.max_steps or (training.epochs or 0) * num_dialogues / training.batch_size
    assert training.warmup_steps <= num_steps / 10
    assert num_steps * training.batch_size <= 20 * num_dialogues


def test_a_file_without_a_dialogue_gets_the_sizes_of_the_preset_and_a_warning(
    convo: Convo,
) -> None:
    Path("my.jsonl").write_text("Hello\n")
    result = convo("--train", "my.jsonl")
    assert result.code == 0
    assert result.err == (
        "warning: no dialogue could be read, so the config keeps the sizes of preset scratch\n"
        "hint: convo validate-data my.jsonl\n"
    )
    assert result.out == commented_yaml(SCRATCH.with_data(["my.jsonl"], []))


@pytest.mark.parametrize("option", ["--train", "--validation", "--test"])
def test_data_that_cannot_be_trained_on_is_refused_before_anything_is_written(
    convo: Convo, option: str
) -> None:
    data_file("mine.jsonl")
    Path("folder").mkdir()
    others = [] if option == "--train" else ["--train", "mine.jsonl"]
    for file, words in (
        (
            "mime.jsonl",
            f"error: {option} mime.jsonl does not exist\nhint: did you mean mine.jsonl?",
        ),
        ("folder", f"error: {option} folder is a directory"),
        ("-", f"error: {option} -: training reads its data more than once"),
    ):
        result = convo(*others, option, file, "-o", "config.yaml")
        assert (result.code, result.out) == (2, "")
        assert result.err.startswith(words)
        assert not Path("config.yaml").exists()


def test_the_users_files_take_the_place_of_the_files_of_the_preset(convo: Convo) -> None:
    for name in ("a.jsonl", "é, b.jsonl", "c.jsonl", "d.jsonl"):
        data_file(name)
    train = ("--train", "a.jsonl", "--train", "é, b.jsonl")
    convo(*train, "--validation", "c.jsonl", "--test", "d.jsonl", "-o", "all.yaml")
    data = load_config(Path("all.yaml")).data
    assert (data.train, data.validation) == (("a.jsonl", "é, b.jsonl"), ("c.jsonl",))
    assert data.test == ("d.jsonl",)
    convo("--train", "a.jsonl", "-o", "one.yaml")
    data = load_config(Path("one.yaml")).data
    assert (data.validation, data.test) == ((), ())


def envelope(result: Result) -> dict[str, Any]:
    assert result.out.count("\n") == 1
    loaded: dict[str, Any] = json.loads(result.out)
    assert (loaded["json_version"], loaded["command"]) == (2, "init-config")
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
            f"error: --preset gpt: no such preset; the presets are {NAMES}\n{GPT2_HINT}",
        ),
        (
            ["--schema", "--list-presets"],
            "error: --schema and --list-presets cannot be combined\n",
        ),
        (
            ["--schema", "--preset", "gpt2"],
            (
                "error: --schema and --list-presets cannot be combined with --preset, --from, "
                "--train, --validation or --test\n"
            ),
        ),
        (["--force"], "error: --force needs a file to replace\nhint: add -o FILE\n"),
        (
            ["--validation", "b.jsonl"],
            "error: --validation needs --train\nhint: add --train FILE\n",
        ),
        (["--test", "b.jsonl"], "error: --test needs --train\nhint: add --train FILE\n"),
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
            ["-o", "a.jsonl/config.yaml"],
            f"error: a.jsonl/config.yaml: a.jsonl is not a folder\n{OTHER_NAME}",
        ),
        (
            ["-o", "-"],
            "error: -o -: a config goes to stdout without -o\nhint: leave -o out\n",
        ),
        (
            ["-o", "."],
            "error: .: not a regular file, but a directory\nhint: choose another name with -o\n",
        ),
    ],
)
def test_a_wrong_use_exits_2_with_these_words(convo: Convo, arguments: list[str], err: str) -> None:
    data_file("a.jsonl")
    assert convo(*arguments) == Result(2, "", err)


def test_a_link_to_a_missing_file_is_named_as_such(convo: Convo) -> None:
    Path("linked.jsonl").symlink_to("gone.jsonl")
    link = "hint: it is a link to gone.jsonl, which does not exist\n"
    result = convo("--train", "linked.jsonl")
    assert result == Result(2, "", f"error: --train linked.jsonl does not exist\n{link}")
    assert "did you mean" not in convo("--train", "link.jsonl").err


def test_an_existing_file_is_replaced_only_by_force(convo: Convo) -> None:
    Path("config.yaml").write_text("mine")
    refused = convo("-o", "config.yaml")
    assert refused == Result(
        2,
        "",
        "error: config.yaml: already exists\nhint: choose another name with -o, or add --force\n",
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


def test_a_name_that_is_too_long_exits_2_and_leaves_what_was_there(convo: Convo) -> None:
    name = f"{'n' * 300}.yaml"
    result = convo("-o", name)
    shown = f"{'n' * 40}…{'n' * 10}.yaml"
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"error: {shown}: this name is too long (305 bytes)\nhint: ")
    assert list(Path().iterdir()) == [Path("sample_data")]


def test_help_has_an_example_that_works(convo: Convo) -> None:
    text = " ".join(convo("--help").out.split())
    example = "convo init-config --preset gpt2 --train my.jsonl -o config.yaml"
    assert f"Example: {example}" in text
    data_file("my.jsonl")
    assert convo(*example.split()[2:]).code == 0


def run_convo(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        check=True,
    )


def test_the_bytes_are_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    train = data_file(str(tmp_path / "é.jsonl"))
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
