"""Files that change while a command reads them: it reads them again, or refuses with exit 6."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import time

import pytest

from convo_cli.data import reader
from convo_cli.model.loading import load_model
from tests.commands import run_here, settings
from tests.forks import start_fork

SCRATCH = "scratch: {layers: 2, width: 32, heads: 2, context: 128}"
ONE_STEP = settings("name=other", "training.max_steps=2")
OTHER_REPLIES = settings("evaluation.reply_dialogues=3")  # not in the cache of the first run
STEP_3, STEP_6 = "checkpoints/step-00000003", "checkpoints/step-00000006"
NUM_DIALOGUES = 25  # of train.jsonl and of valid.jsonl


@pytest.fixture
def at_dialogue(monkeypatch):
    """Call a function each time this many more dialogues are read; 0: once, before the first."""

    def arrange(number, call, *, times=1):
        counter, read_line = itertools.count(), reader._read_line
        calls = {number + index * NUM_DIALOGUES for index in range(times)}

        def counted(*arguments):
            if next(counter) in calls:
                call()
            return read_line(*arguments)

        monkeypatch.setattr(reader, "_read_line", counted)

    return arrange


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def add_dialogue(path):
    with path.open("ab") as file:
        file.write(b'["What is this?", "One more."]\n')


# Data


@pytest.fixture
def fresh(work):
    """With an empty cache, the data is read for the tokenizer, for its tokens and for replies."""
    shutil.rmtree(work / "runs")


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("number", [0, 10, NUM_DIALOGUES])
def test_train_begins_again_with_the_new_file_and_says_so(work, convo, at_dialogue, number):
    data, before = work / "train.jsonl", sha256(work / "train.jsonl")
    at_dialogue(number, lambda: add_dialogue(data))
    result = convo("train", "config.yaml", *ONE_STEP)
    assert result.code == 0
    assert (
        f"train.jsonl changed while it was read (SHA-256 {before} before, now {sha256(data)}); "
        "hashing and reading the data again"
    ) in " ".join(result.err.split())
    (file,) = json.loads((work / "runs/other/run.json").read_text())["train"]
    assert (file["sha256"], file["num_lines"]) == (sha256(data), NUM_DIALOGUES + 1)


def test_validation_data_that_changes_while_replies_are_chosen_is_read_again(
    work, convo, at_dialogue
):
    data = work / "valid.jsonl"
    at_dialogue(3, lambda: add_dialogue(data))  # everything else is in the cache of the first run
    result = convo("train", "config.yaml", *ONE_STEP, *OTHER_REPLIES)
    assert result.code == 0
    assert result.err.count("changed while it was read") == 1
    (file,) = json.loads((work / "runs/other/run.json").read_text())["validation"]
    assert file["sha256"] == sha256(data)


@pytest.mark.usefixtures("fresh")
def test_data_that_keeps_changing_is_refused_and_nothing_is_kept_of_it(work, convo, at_dialogue):
    data = work / "train.jsonl"
    at_dialogue(0, lambda: add_dialogue(data), times=20)
    result = convo("train", "config.yaml")
    assert result.code == 6
    assert result.err.count("changed while it was read") == 3
    assert "hint: wait until nothing writes to the file, or use a copy of it" in result.err
    assert not (work / "runs").exists()


def test_a_file_that_changes_while_resume_reads_it_is_not_what_the_run_began_with(
    work, convo, at_dialogue
):
    data = work / "valid.jsonl"
    at_dialogue(3, lambda: add_dialogue(data))
    result = convo("resume", "runs/tiny", "--set", "training.max_steps=8", *OTHER_REPLIES)
    assert result.code == 6
    assert result.err.count("changed while it was read") == 1
    assert "not the data that the run began with" in result.err


@pytest.mark.parametrize("number", [3, NUM_DIALOGUES + 3])
def test_evaluate_scores_one_content_and_names_it(work, convo, at_dialogue, number):
    data = work / "valid.jsonl"
    at_dialogue(number, lambda: add_dialogue(data))
    result = convo("evaluate", "exports/tiny", "valid.jsonl", "--replies", 1, "--json")
    assert result.err.count("changed while it was read") == 1
    assert result.json["data"] == [{"path": "valid.jsonl", "sha256": sha256(data)}]
    again = convo("evaluate", "exports/tiny", "valid.jsonl", "--replies", 1, "--json")
    assert again.json == result.json


@pytest.mark.parametrize("config", [["train.jsonl"], ["--config", "config.yaml"]])
def test_validate_data_does_not_report_on_a_file_that_changed_meanwhile(
    work, convo, monkeypatch, config
):
    from convo_cli.data.checks import validate

    read = validate._read

    def read_then_change(*arguments):
        tally = read(*arguments)
        add_dialogue(work / "train.jsonl")
        return tally

    monkeypatch.setattr(validate, "_read", read_then_change)
    result = convo("validate-data", *config)
    assert (result.code, result.out) == (6, "")
    assert "train.jsonl: changed while it was read" in result.err


def test_fix_writes_nothing_from_a_file_that_changed_meanwhile(work, convo, monkeypatch):
    from convo_cli.data.repair import copies

    repair_file = copies._repair_file

    def repair_then_change(*arguments):
        repair_file(*arguments)
        add_dialogue(work / "train.jsonl")

    monkeypatch.setattr(copies, "_repair_file", repair_then_change)
    result = convo("validate-data", "train.jsonl", "--fix", "out.jsonl")
    assert result.code == 6
    assert not (work / "out.jsonl").exists()


# Model folders


def renamed(path, content):
    path.with_name("other.json").write_bytes(content)
    path.with_name("other.json").rename(path)


def in_place(path, content):
    """Change a file and set its modification time back."""
    status = path.stat()
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.fixture(params=[renamed, in_place])
def before_loading(request, work, monkeypatch):
    """Replace weights by others of the same size, after verification and just before loading."""
    other = (work / "runs/tiny" / STEP_3 / "model.safetensors").read_bytes()

    def arrange(room, folder):
        def change_and_load(*arguments, **options):
            request.param(work / folder / "model.safetensors", other)
            return load_model(*arguments, **options)

        monkeypatch.setattr(f"convo_cli.{room}.load_model", change_and_load)

    return arrange


@pytest.mark.parametrize(
    ("room", "folder", "command"),
    [
        ("model.open", f"runs/tiny/{STEP_6}", ["chat", "runs/tiny"]),
        ("model.open", "exports/tiny", ["chat", "exports/tiny"]),
        ("model.open", f"runs/tiny/{STEP_6}", ["evaluate", f"runs/tiny/{STEP_6}", "valid.jsonl"]),
        ("export.exporting", f"runs/tiny/{STEP_6}", ["export", "runs/tiny", "exports/other"]),
        (
            "training.saving",
            f"runs/tiny/{STEP_6}",
            ["resume", "runs/tiny", "--set", "training.max_steps=8"],
        ),
        ("training.saving", f"runs/tiny/{STEP_6}", ["resume", "runs/tiny", "--verify"]),
    ],
)
def test_weights_that_are_not_those_that_were_verified_are_refused(
    work, convo, before_loading, room, folder, command
):
    before_loading(room, folder)
    result = convo(*command)
    assert (result.code, result.out) == (6, "")
    assert f"{folder}/model.safetensors: changed while" in " ".join(result.err.split())
    assert not (work / "exports/other").exists()


def test_a_base_model_that_changes_between_its_hash_and_its_loading_is_refused(
    work, convo, before_loading
):
    before_loading("training.build", "exports/tiny")
    (work / "base.yaml").write_text(
        (work / "config.yaml").read_text().replace(SCRATCH, "pretrained: exports/tiny")
    )
    result = convo("train", "base.yaml", *ONE_STEP)
    assert (result.code, result.out) == (6, "")
    assert "exports/tiny/model.safetensors: changed while exports/tiny was read" in " ".join(
        result.err.split()
    )
    assert not (work / "runs/other").exists()


def test_a_hub_models_branch_that_moves_meanwhile_does_not_mix_two_commits(
    work, convo, monkeypatch
):
    commits = ["0" * 40, "1" * 40]
    cache = work / "hub/models--somebody--tiny"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs/main").write_text(commits[0])
    for commit in commits:
        shutil.copytree(work / "exports/tiny", cache / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(work / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    loaded = []

    def move_and_load(*arguments):
        (cache / "refs/main").write_text(commits[1])
        loaded.append(arguments)
        return load_model(*arguments)

    monkeypatch.setattr("convo_cli.training.build.load_model", move_and_load)
    (work / "hub.yaml").write_text(
        (work / "config.yaml").read_text().replace(SCRATCH, "pretrained: somebody/tiny")
    )
    result = convo("train", "hub.yaml", *ONE_STEP)
    assert result.code == 0
    assert loaded == [("somebody/tiny", commits[0])]
    info = json.loads((work / "runs/other/run.json").read_text())
    assert info["config"]["model"]["revision"] == info["base_model"]["commit"] == commits[0]


def test_a_loaded_model_and_optimizer_do_not_change_with_their_files(work):
    from convo_cli.config.load import load_config
    from convo_cli.prepare.cache import Cache
    from convo_cli.prepare.inputs import Inputs
    from convo_cli.runs.directory import RunDirectory
    from convo_cli.runs.provenance.data_files import read_data_files
    from convo_cli.runs.provenance.run_info import read_run_info
    from convo_cli.training.build import build_from

    run = RunDirectory(work / "runs/tiny")
    folder, config = run.path / STEP_6, load_config(run.config)
    inputs = Inputs(config, read_data_files(config.data), Cache(run.path.parent, print), print)
    _, state = build_from(folder, read_run_info(run), inputs)
    tensors = [
        *state.model.parameters(),
        *(value for each in state.optimizer.state.values() for value in each.values()),
    ]
    before = [tensor.clone() for tensor in tensors]
    for name in ("model.safetensors", "optimizer.safetensors"):
        in_place(folder / name, bytes((folder / name).stat().st_size))
        os.truncate(folder / name, 0)
    assert all((tensor == value).all() for tensor, value in zip(tensors, before, strict=True))


# The cache


def test_a_cache_that_is_cut_short_while_a_run_is_going_is_an_error_and_resume_makes_it_again(work):
    run = work / "runs/long"
    process = start_fork(
        work,
        "train",
        "config.yaml",
        *settings("name=long", "training.max_steps=100", "evaluation.every_steps=100"),
    )
    try:
        deadline = time.monotonic() + 120
        while (
            not (run / "metrics.jsonl").exists()
            or '"step": 3,' not in (run / "metrics.jsonl").read_text()
        ):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        for tokens in work.glob("runs/.convo-cache/tokens-*/input_ids"):
            os.truncate(tokens, 10)
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
    message = " ".join(err.decode().split())
    assert process.returncode == 5, message
    assert "input_ids: the file changed while it was in use" in message
    assert "hint: start again, or `convo resume RUN_DIR` if the run has begun" in message
    result = run_here(work, "resume", "runs/long")
    assert result.code == 0
    assert "preparing the data again" in result.err
