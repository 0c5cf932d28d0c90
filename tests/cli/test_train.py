"""`convo train`: its output, its files, and its end when numbers overflow."""

from __future__ import annotations

import json
import math
import shlex

import numpy as np
import pytest

from tests.commands import settings

SHORT = settings("name=new", "training.max_steps=2", "data.validation=[]")


def _loss(value):
    """Return the result of an evaluation whose only target has this nll."""
    from convo_cli.evaluation.likelihood import GroupedNll

    return GroupedNll(np.array([value, 0.0, 0.0]), np.array([1, 0, 0]))


def test_stdout_is_the_run_directory_and_stderr_all_else(convo):
    result = convo("train", "config.yaml", *SHORT)
    assert (result.code, result.out) == (0, "runs/new\n")
    lines = result.err.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("step ")] == ["step", "step"]
    assert "saved step 2  runs/new/checkpoints/step-00000002" in lines
    assert lines[-4:] == [
        "next:",
        "  convo chat runs/new",
        "  convo export runs/new exports/new",
        "  convo resume runs/new --set training.max_steps=4",
    ]


def test_the_next_commands_can_be_typed_as_they_stand(work, convo):
    result = convo("train", "config.yaml", *SHORT, *settings("output_dir=my runs"))
    assert (result.code, result.out) == (0, "my runs/new\n")
    for line in result.err.splitlines()[-3:]:
        assert convo(*shlex.split(line)[1:], "-q").code == 0, line


def test_quiet_says_nothing_but_the_result(convo):
    assert convo("train", "config.yaml", "-q", *SHORT) == (0, "runs/new\n", "")


def test_json_is_one_versioned_object(work, convo):
    result = convo(
        "train", "config.yaml", "--json", "-q", *settings("name=new", "training.max_steps=3")
    )
    assert result.err == ""
    answer = result.json
    assert answer.pop("best_loss") == pytest.approx(
        json.loads((work / "runs/new/best-loss.json").read_text())["evaluation"]["loss"]
    )
    assert answer.pop("best_metric") >= 0
    assert [(score["name"], score["step"]) for score in answer.pop("best")] == [
        ("loss", 3),
        ("bleu-4", 3),
    ]
    assert answer.pop("convo")
    assert answer == {
        "json_version": 2, "command": "train", "run_dir": "runs/new", "step": 3,
        "reason": "all 3 steps done", "test": None,
    }  # fmt: skip


def test_a_run_that_diverges_stops_and_can_be_gone_on_with_as_the_message_says(work, convo):
    absurd = settings(
        "name=new", "training.max_steps=20", "training.learning_rate=10",
        "training.schedule=constant", "training.warmup_steps=0", "training.precision=fp16",
        "data.validation=[]",
    )  # fmt: skip
    result = convo("train", "config.yaml", "-q", *absurd)
    assert (result.code, result.out) == (4, "")
    assert result.err.startswith("error: step ")
    assert "the weights are those of step" in result.err
    assert "\n  train.jsonl:" in result.err
    command = result.err.splitlines()[-1].strip()
    assert command == "convo resume runs/new --set training.learning_rate=3.3"
    slower = settings("training.learning_rate=1e-4", "training.precision=fp32")
    assert convo(*shlex.split(command)[1:], *slower, "-q") == (0, "runs/new\n", "")
    assert (work / "runs/new/checkpoints/step-00000020").is_dir()


def test_text_of_the_data_does_not_reach_the_terminal_as_control(work, convo):
    line = json.dumps(["\x9b31mred", "\x9b2J[bold]Hi[/INST]"]) + "\n"
    (work / "train.jsonl").write_text(line * 8, encoding="utf-8")
    result = convo(
        "train",
        "config.yaml",
        *settings("name=new", "training.max_steps=2", "data.validation=train.jsonl"),
    )
    assert result.code == 0
    assert "reference [bold]Hi[/INST]" in result.err
    assert not set(result.err) & {"\x1b", "\x9b"}


def test_a_validation_loss_that_is_not_finite_is_no_end_of_the_run(work, convo, monkeypatch):
    """A resume from its own checkpoint would fail again, so the hint uses an older one."""
    from convo_cli.evaluation import evaluator

    nll_by_groupings, losses = evaluator.nll_by_groupings, []

    def overflowing(*arguments, **options):
        losses.append(1)
        return [_loss(math.nan)] if len(losses) == 2 else nll_by_groupings(*arguments, **options)

    monkeypatch.setattr(evaluator, "nll_by_groupings", overflowing)
    result = convo("train", "config.yaml", "-q", *settings("name=new"))
    assert (result.code, result.out) == (4, "")
    assert "the loss on the evaluation data is nan after step 6" in result.err
    hint = result.err.splitlines()[-1].strip()
    assert hint == "convo resume runs/new --load loss --set training.learning_rate=0.00033"
    assert (work / "runs/new/checkpoints/step-00000006").is_dir()
    assert convo(*shlex.split(hint)[1:], "-q") == (0, "runs/new-from-3\n", "")


def test_without_a_best_checkpoint_no_command_is_named(convo, monkeypatch):
    from convo_cli.evaluation import evaluator

    monkeypatch.setattr(
        evaluator, "nll_by_groupings", lambda *arguments, **options: [_loss(math.inf)]
    )
    result = convo("train", "config.yaml", "-q", *settings("name=new"))
    assert result.code == 4
    assert "convo resume" not in result.err
