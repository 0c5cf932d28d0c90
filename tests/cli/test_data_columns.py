"""`data.columns` and `--set` of the commands that read data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.commands import settings

TURNS = settings(
    "data.columns.turns=meta.dialog", "data.columns.speaker=who", "data.columns.text=body"
)
SHORT_RUN = settings("training.max_steps=1", "training.warmup_steps=0")


def write(path: Path, *values: Any) -> None:
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")


def odd(question: str, answer: str) -> dict[str, Any]:
    said = [{"who": "user", "body": question}, {"who": "bot", "body": answer}]
    return {"meta": {"dialog": said}}


def test_a_mapped_file_is_checked_repaired_trained_on_and_evaluated(convo, work):
    write(work / "odd.jsonl", odd("Where is the bread?", "On the second shelf.\u200b"))
    assert convo("validate-data", "odd.jsonl").code == 3
    result = convo("validate-data", "odd.jsonl", *TURNS)
    assert (result.code, "data.columns" in result.out) == (0, True)
    assert convo("validate-data", "odd.jsonl", *TURNS, "--fix", "fixed.jsonl").code == 0
    assert json.loads((work / "fixed.jsonl").read_text()) == odd(
        "Where is the bread?", "On the second shelf."
    )
    files = settings("data.train=fixed.jsonl", "data.validation=fixed.jsonl", "name=mapped")
    result = convo("train", "config.yaml", *SHORT_RUN, *TURNS, *files)
    assert result.code == 0, result.err
    assert "dialog" in (work / "runs/mapped/config.yaml").read_text()
    # A run remembers the mapping; for a model without a run it can be given.
    assert convo("evaluate", "runs/mapped", "odd.jsonl", "-q").code == 0
    assert convo("evaluate", "exports/tiny", "odd.jsonl", "-q").code == 3
    assert convo("evaluate", "exports/tiny", "odd.jsonl", "-q", *TURNS).code == 0


def test_validate_data_refuses_the_same_settings_as_train_and_those_without_effect(convo, work):
    write(work / "odd.jsonl", odd("Hi", "Hello!"))
    wrong = (
        "data.columns.turn=meta",
        "data.columns.turns=a..b",
        "data.columns.user=meta",
        "data.first_speaker=nobody",
        "training.max_stepz=2",
        "nonsense",
    )
    for setting in wrong:
        results = [
            convo("validate-data", "odd.jsonl", *settings(setting)),
            convo("evaluate", "runs/tiny", "odd.jsonl", "-q", *settings(setting)),
            convo("train", "config.yaml", *settings(setting)),
        ]
        assert {(result.code, result.err) for result in results} == {(2, results[0].err)}
        assert results[0].err.startswith(f"error: --set {setting.partition('=')[0]}: ")
    for setting in ("training.max_steps=2", "data.train=odd.jsonl", "name=x"):
        for command in (["validate-data", "odd.jsonl"], ["evaluate", "runs/tiny", "odd.jsonl"]):
            result = convo(*command, *settings(setting))
            assert (result.code, "Traceback" in result.err) == (2, False)
    result = convo("validate-data", "--config", "config.yaml", *settings("data.train=odd.jsonl"))
    assert (result.code, "odd.jsonl" in result.out) == (3, True)


def test_train_on_decides_what_a_dialogue_without_a_reply_is(convo, work):
    write(work / "one.jsonl", [{"role": "user", "content": "Hello there"}])
    assert convo("validate-data", "one.jsonl").code == 3
    assert convo("validate-data", "one.jsonl", *settings("dialogue.train_on=all")).code == 0
