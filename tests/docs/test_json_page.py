"""docs/json.md names every field of every `--json` object, and no other."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.commands import make_workplace, run_here, settings
from tests.docs.documented_fields import documented, require_equal

PAGE = (Path(__file__).parents[2] / "docs" / "json.md").read_text(encoding="utf-8")
COMMON = ["convo", "json_version", "command"]


@pytest.fixture(scope="module")
def convo(tmp_path_factory):
    """Runs a command with `--json` in a folder that holds a run and returns its object."""
    work = make_workplace(tmp_path_factory.mktemp("work"))
    run = partial(run_here, work)
    assert (
        run(
            "train", "config.yaml", "-q", *settings("training.max_steps=4", "data.test=valid.jsonl")
        ).code
        == 0
    )
    bad = '["Hi", ""]\n["Hi", "Hello", 3]\n["Hi", "Hello&amp;!"]\n'
    bad += '[{"role": "zed", "content": "Hi"}, {"role": "agent", "content": "Hello!"}]\n'
    (work / "bad.jsonl").write_text(bad, encoding="utf-8")
    chat = "02.01.24, 10:00 - Ben: Hi\n02.01.24, 10:01 - Ada: Hello\n"
    (work / "chat.txt").write_text(chat, encoding="utf-8")
    scores = '{"command": "evaluate", "model": "runs/tiny", "scores": {"loss": 2.5}}'
    (work / "scores.json").write_text(scores, encoding="utf-8")

    def in_json(*arguments: str, code: int = 0, stdin: bytes = b"") -> dict[str, Any]:
        result = run(*arguments, "--json", stdin=stdin)
        assert result.code == code, result.err
        assert result.out.count("\n") == 1
        return dict(result.json)

    return in_json


def own(value: dict[str, Any], command: str) -> dict[str, Any]:
    """The fields of an object without those that every object has."""
    assert list(value)[:3] == COMMON == documented(PAGE, "Output for programs")
    assert value["command"] == command
    return {key: value[key] for key in list(value)[3:]}


CASES = [
    ("train and resume", "resume", ("runs/tiny",)),
    ("train --dry-run", "train", ("config.yaml", "--dry-run", "--set", "name=planned")),
    ("resume --verify", "resume", ("runs/tiny", "--verify", "--steps", "2")),
    ("evaluate", "evaluate", ("runs/tiny", "valid.jsonl", "--replies", "1")),
    (
        "Several models",
        "evaluate",
        ("runs/tiny", "runs/tiny/checkpoints/step-00000003", "valid.jsonl", "--replies", "1"),
    ),
    ("export", "export", ("runs/tiny", "exports/tiny")),
    ("init-config --list-presets", "init-config", ("--list-presets",)),
    ("init-config --schema", "init-config", ("--schema",)),
]


@pytest.mark.parametrize(
    ("heading", "command", "arguments"), CASES, ids=[case[0] for case in CASES]
)
def test_a_command(convo, heading, command, arguments):
    require_equal([own(convo(command, *arguments), command)], documented(PAGE, heading))


def test_train(convo):
    trained = convo(
        "train",
        "config.yaml",
        *settings("name=again", "training.max_steps=1", "data.test=valid.jsonl"),
    )
    require_equal([own(trained, "train")], documented(PAGE, "train and resume"))


def test_report(convo):
    extended = ("resume", "runs/tiny", *settings("training.max_steps=5", "name=longer"), "-q")
    convo(*extended)
    objects = [
        own(convo("report", "runs/tiny"), "report"),
        own(convo("report", "runs/tiny", "runs/longer", "--scores", "scores.json"), "report"),
    ]
    require_equal(objects, documented(PAGE, "report"))


def test_import(convo):
    imported = convo("import", "chat.txt", "--assistant", "Ada", "-o", "chat.jsonl")
    require_equal([own(imported, "import")], documented(PAGE, "import"))


def test_init_config(convo):
    old = Path(__file__).parents[1] / "fixtures/forerunners/multi_turn.yaml"
    options = (("--train", "train.jsonl"), ("--from", str(old)))
    objects = [own(convo("init-config", *words), "init-config") for words in options]
    require_equal(objects, documented(PAGE, "init-config"))


def test_export_verify(convo):
    convo("export", "runs/tiny", "exports/verified")
    verified = convo("export", "exports/verified", "--verify")
    require_equal([own(verified, "export")], documented(PAGE, "export --verify"))


def test_chat(convo):
    talked = convo("chat", "runs/tiny", "--temperature", "0", stdin=b"Hello!\n")
    require_equal([own(talked, "chat")], documented(PAGE, "chat"))


def test_a_loaded_checkpoint(convo):
    loaded = [
        convo("chat", "runs/tiny", stdin=b"Hello!\n")["checkpoint"],
        convo("evaluate", "runs/tiny", "valid.jsonl", "--replies", "0")["checkpoint"],
        convo("export", "runs/tiny", "exports/again")["checkpoint"],
    ]
    for one in loaded:
        require_equal([one], documented(PAGE, "A loaded checkpoint"))


def test_validate_data(convo):
    shown = ("--config", "config.yaml", "--show-tokens", "1")
    whole = own(convo("validate-data", "valid.jsonl", *shown), "validate-data")
    leaky = own(convo("validate-data", "valid.jsonl", "valid.jsonl"), "validate-data")
    bad = own(convo("validate-data", "bad.jsonl", code=3), "validate-data")
    fixed = own(convo("validate-data", "bad.jsonl", "--fix", "out.jsonl", code=3), "validate-data")
    objects = [whole, leaky, bad, fixed]
    require_equal(objects, documented(PAGE, "validate-data"))
    files = [file for value in objects for file in value["files"]]
    require_equal(files, documented(PAGE, "A file"))
    require_equal([whole["preflight"]], documented(PAGE, "preflight"))
    require_equal([fixed["fix"]], documented(PAGE, "fix"))
    groups = whole["preflight_problem_groups"]
    assert groups == []


def test_errors(convo):
    cases = [
        (("train", "nope.yaml"), 2),
        (("train", "config.yaml", *settings("training.lr=1", "seed=-1")), 2),
        (("resume", "runs"), 5),
        (("evaluate", "runs/tiny", "bad.jsonl"), 3),
    ]
    errors = [own(convo(*words, code=code), words[0]) for words, code in cases]
    require_equal(errors, documented(PAGE, "Errors"))
    assert [problem["key"] for problem in errors[1]["error"]["problems"]] == ["training.lr", "seed"]
