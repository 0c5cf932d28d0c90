"""`convo init-config --from`: a config of a forerunner becomes one of convo, which trains."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from convo_cli.config.load import load_config
from convo_cli.config.presets import PRESETS
from tests.commands import EXECUTABLE, Result, environment, run_here, settings
from tests.conftest import SAMPLE_DATA, corpus
from tests.foreign import byte_pairs, fast, save_foreign

SAMPLES = Path(__file__).parents[1] / "fixtures" / "forerunners"
NAMES = sorted(path.name for path in SAMPLES.iterdir())
UNKNOWN = """trainer:
  max_epochs: 1
  mine: {deep: {er: 1}}
model:
  pretrained_model_or_path: gpt2
  train_file: train.jsonl
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the sample configs and, under their names in these, small data files."""
    for path in SAMPLES.iterdir():
        shutil.copy(path, tmp_path)
    for place in ("data", "input", "data/dailydialog"):
        (tmp_path / place).mkdir()
        for name in ("train", "valid", "test"):
            shutil.copy(SAMPLE_DATA / f"{name}.jsonl", tmp_path / place)
    (tmp_path / "old.yaml").write_text(UNKNOWN)
    return tmp_path


@pytest.fixture
def convo(folder):
    return partial(run_here, folder, "init-config")


@pytest.mark.parametrize("name", [name for name in NAMES if "dataset" not in name])
def test_a_sample_config_is_converted_without_a_warning(convo, folder, name):
    result = convo("--from", name, "-o", "new.yaml")
    assert (result.code, result.out) == (0, "")
    lines = result.err.splitlines()
    assert [line for line in lines if "warning" in line or "notice" in line] == []
    assert lines[-2:] == ["Wrote new.yaml", "Wrote convo.schema.json for editors"]
    assert all(line.startswith(f"{name}:") for line in lines[:-2])
    assert convo("--from", name, "-q") == Result(0, (folder / "new.yaml").read_text(), "")


@pytest.mark.parametrize("output", ["old.yaml", "link.yaml", "./data/../old.yaml"])
def test_the_old_config_is_never_replaced(convo, folder, output):
    (folder / "link.yaml").symlink_to("old.yaml")
    result = convo("--from", "old.yaml", "-o", output, "--force")
    hint = "hint: choose another name\n"
    written = output.removeprefix("./")
    assert result == Result(2, "", f"error: -o {written}: the file that --from reads\n{hint}")
    assert (folder / "old.yaml").read_text() == UNKNOWN


def test_the_comments_at_the_top_are_the_answers_and_keys_name_their_origin(convo):
    result = convo("--from", "convmodel_lightning.yaml")
    answers = [line for line in result.err.splitlines() if " -> " in line]
    top = result.out.partition("# A key that is left out")[0]
    for line in answers:
        place, _, words = line.partition(" ")
        assert f"#   line {place.split(':')[1]} {words}\n" in top
    assert "# From model.lr: 1.0e-04 (line 79).\n  learning_rate: 0.0001" in result.out


def test_json_has_an_object_for_each_key(convo):
    record = convo("--from", "convmodel_lightning.yaml", "--json", "-q").json
    converted = record["converted"]
    assert (converted["tool"], converted["form"]) == ("convmodel", "LightningCLI YAML")
    answers = {answer["key"]: answer for answer in converted["answers"]}
    assert answers["trainer.gpus"] == {
        "key": "trainer.gpus", "value": "1", "line": 13, "column": 3, "status": "mapped",
        "becomes": {"training.device": "cuda"}, "note": None,
    }  # fmt: skip
    assert answers["model.num_workers"]["status"] == "not needed"
    assert record["config"]["training"]["precision"] == "fp16"
    assert convo("--json").json["converted"] is None


def test_unsupported_keys_are_warnings_also_when_quiet(convo):
    result = convo("--from", "old.yaml", "-q", "-o", "new.yaml")
    assert (result.code, result.err) == (
        0, "warning: old.yaml:3:17 trainer.mine.deep.er: 1 -> not supported: not known\n",
    )  # fmt: skip


def test_a_contradiction_exits_2_and_writes_nothing(convo, folder):
    (folder / "old.yaml").write_text(UNKNOWN.replace("mine:", "max_steps: 5\n  mine:"))
    result = convo("--from", "old.yaml", "-o", "new.yaml")
    assert (result.code, result.out) == (2, "")
    assert "old.yaml:2:15 trainer.max_epochs: max_epochs is 1 and max_steps 5" in result.err
    assert "old.yaml:3:14 trainer.max_steps: max_epochs is 1 and max_steps 5" in result.err
    assert not (folder / "new.yaml").exists()
    problems = convo("--from", "old.yaml", "--json").json["error"]["problems"]
    assert [(problem["key"], problem["line"]) for problem in problems] == [
        ("trainer.max_epochs", 2), ("trainer.max_steps", 3),
    ]  # fmt: skip


def test_missing_data_files_are_notices(convo, folder):
    result = convo("--from", "old.yaml", "-o", "new.yaml")
    assert result.code == 0
    assert "notice: train.jsonl does not exist here" in result.err
    given = ("--train", "data/train.jsonl", "--test", "data/test.jsonl")
    result = convo("--from", "old.yaml", "-o", "other.yaml", *given)
    assert "notice" not in result.err
    data = load_config(folder / "other.yaml").data
    assert (data.train, data.validation, data.test) == (
        ("data/train.jsonl",), (), ("data/test.jsonl",),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--from", "no.yaml"), "--from no.yaml: no such file"),
        (("--from", "old.yml"), "--from old.yml: no such file\nhint: did you mean old.yaml?"),
        (("--from", "data/train.jsonl"), "--from data/train.jsonl: a data file\nhint: convo init"),
        (("--from", "data"), "data: this is a directory, not a config file"),
        (("--from", "old.yaml", "--preset", "scratch"), "--preset and --from cannot be combined"),
        (("--from", "old.yaml", "--schema"), "--schema and --list-presets cannot be combined"),
        (("--from", "mine.yaml"), "mine.yaml: already a config of convo\nhint: convo train mine"),
        (("--from", "old.yaml", "--train", "no.jsonl"), "--train no.jsonl does not exist"),
    ],
)
def test_a_wrong_use_exits_2(convo, folder, arguments, words):
    convo("-o", "mine.yaml")
    result = convo(*arguments)
    assert (result.code, result.out) == (2, "")
    assert f"error: {words}" in result.err


def test_control_sequences_of_the_old_config_do_not_reach_the_terminal(convo, folder):
    hostile = {"pretrained_model_or_path": "gpt2", "train_file": "a\x1b[31m\u202ered",
               "accumulation_steps": 1, "save_best_model": True, "x\u202ey": "\x9b1m"}  # fmt: skip
    (folder / "old.json").write_text(json.dumps(hostile))
    result = convo("--from", "old.json")
    assert not set("\x1b\x9b\u202e") & set(result.out + result.err)


def test_convo_train_prints_the_command_that_converts(folder):
    result = run_here(folder, "train", "convmodel_fit.json")
    hint = "convo init-config --from convmodel_fit.json -o config.yaml"
    message = "convmodel_fit.json: a config of convmodel (fit JSON), not of convo"
    assert (result.code, result.err) == (2, f"error: {message}\nhint: {hint}\n")
    assert run_here(folder, *hint.split()[1:], "-q").code == 0
    assert load_config(folder / "config.yaml").name == "model"


def test_no_model_library_is_imported(folder):
    script = (
        "import sys; sys.argv = ['convo', 'init-config', '-q', '--from', 'multi_turn.yaml']\n"
        "from convo_cli.cli.app import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)), file=sys.stderr)"
    )
    command = [sys.executable, "-c", script]
    run = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, check=True)
    assert run.stderr.decode().strip() == "[]"


@pytest.fixture(scope="module")
def daily(tmp_path_factory):
    """A folder with a tiny GPT-2, the sample configs, and a part of DailyDialog."""
    folder = tmp_path_factory.mktemp("daily")
    source = corpus("dailydialog")
    named = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    size = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 1024}
    save_foreign(folder / "tiny", "gpt2", fast(byte_pairs(), **named), size)
    for place in ("data", "input", "data/dailydialog"):
        (folder / place).mkdir()
        for name, lines in (("train", 160), ("valid", 8), ("test", 8)):
            part = (source / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()[:lines]
            (folder / place / f"{name}.jsonl").write_text("\n".join(part) + "\n", encoding="utf-8")
    for path in SAMPLES.iterdir():
        shutil.copy(path, folder)
    return folder


SHORT = settings(
    "model.pretrained=tiny", "training.device=cpu", "training.max_steps=20", "training.epochs=null",
    "training.batch_size=2", "evaluation.reply_dialogues=1", "generation.max_new_tokens=4",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_sample_config_trains_20_steps_on_dailydialog(daily, name):
    """By the real executable; only the size, the device and the length are changed."""
    files = ("--train", "data/train.jsonl", "--validation", "data/valid.jsonl")
    new = f"{name}.new.yaml"
    convert = ["init-config", "--from", name, "-o", new, *(files if "dataset" in name else ())]
    run = f"name={name.split('.')[0]}"
    for arguments in (convert, ["train", new, "-q", *SHORT, *settings(run)]):
        done = subprocess.run(
            [EXECUTABLE, *map(str, arguments)],
            cwd=daily, env=environment(), capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
    assert (daily / done.stdout.decode().strip() / "checkpoints/step-00000020").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convmodel", "convmodel-fit", "multi-turn-gpt2"])
def test_a_preset_of_a_forerunner_trains_on_dailydialog(daily, name):
    files = [f"--{key}=data/dailydialog/{file}.jsonl" for key, file in
             (("train", "train"), ("validation", "valid"), ("test", "test"))]  # fmt: skip
    assert name in PRESETS
    assert run_here(daily, "init-config", "--preset", name, *files, "-o", f"{name}.yaml").code == 0
    result = run_here(daily, "train", f"{name}.yaml", "-q", *SHORT, *settings(f"name={name}"))
    assert result.code == 0, result.err
