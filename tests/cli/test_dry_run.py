"""`convo train --dry-run`: the plan of a run, with the refusals of `convo train`."""

from __future__ import annotations

import json
import shlex

import pytest

from tests.commands import settings

PLAN = ("train", "config.yaml", "--dry-run")


def test_the_plan_is_the_result_and_no_run_is_left(convo, work):
    before = {path.name for path in (work / "runs").iterdir()}
    result = convo(*PLAN, *settings("name=planned"))
    assert result.code == 0
    for text in ("dialogues", "assistant targets", "parameters", "checkpoints", "learning rate"):
        assert text in result.out
    assert "runs/planned (dry run: not created)" in result.out
    assert {path.name for path in (work / "runs").iterdir()} == before
    quiet = convo(*PLAN, "-q", *settings("name=planned"))
    assert (quiet.code, quiet.err) == (0, "")
    assert quiet.out.splitlines()[:9] == result.out.splitlines()[:9]


def test_the_next_command_starts_the_planned_run(convo, work):
    overrides = settings("name=planned", "training.max_steps=2", "data.validation=[]")
    result = convo(*PLAN, *overrides)
    command = result.err.rpartition("next:\n  ")[2]
    assert command.endswith(" --set training.max_steps=2 --set 'data.validation=[]'\n")
    program, *words = shlex.split(command)
    assert (program, words) == ("convo", ["train", "config.yaml", *overrides])
    assert convo(*words, "-q").code == 0
    assert (work / "runs/planned/checkpoints/step-00000002").is_dir()


def test_the_object_has_the_numbers_of_the_run(convo, work):
    overrides = settings("name=planned", "training.max_steps=3")
    plan = convo(*PLAN, "--json", "-q", *overrides).json
    assert plan["num_processes"] == 1
    assert (plan["command"], plan["is_dry_run"], plan["run_dir"]) == ("train", True, "runs/planned")
    assert convo("train", "config.yaml", "-q", *overrides).code == 0
    run = work / "runs/planned"
    info = json.loads((run / "run.json").read_bytes())
    assert (plan["max_steps"], plan["device"]) == (info["max_steps"], info["execution"]["device"])
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [one for one in map(json.loads, lines) if one["event"] == "step"]
    assert plan["num_tokens"] == sum(step["num_tokens"] for step in steps)
    assert plan["num_targets"] == sum(step["num_targets"] for step in steps)
    assert plan["epochs"] == steps[-1]["epoch"]
    assert [one["learning_rate"] for one in plan["learning_rate"]["values"]] == [
        step["learning_rate"] for step in steps
    ]
    last = run / "checkpoints/step-00000003"
    size = sum(file.stat().st_size for file in last.iterdir())
    assert plan["checkpoint_bytes"] == pytest.approx(size, abs=1024)
    assert plan["peak_bytes"] == plan["max_checkpoints"] * plan["checkpoint_bytes"]


@pytest.mark.parametrize(
    ("overrides", "code"),
    [
        (["name=tiny"], 5),
        (["data.train=missing.jsonl"], 2),
        (["data.train=bad.jsonl", "name=other"], 3),
        (["training.max_steps=none"], 2),
        (["training.device=cuda:99", "name=other"], 2),
        (["dialogue.max_length=16", "name=other"], 3),
        (["dialogue.max_length=100000", "name=other"], 2),
        (["output_dir=config.yaml", "name=other"], 7),
    ],
)
def test_a_dry_run_is_refused_like_a_run(convo, work, overrides, code):
    (work / "bad.jsonl").write_text('["Hi", "Hello"]\n["cut\n', encoding="utf-8")
    plan = convo(*PLAN, "-q", *settings(*overrides))
    run = convo("train", "config.yaml", "-q", *settings(*overrides))
    assert (plan.code, plan.out, plan.err) == (code, "", run.err)
    assert run.code == code


def test_a_checkpoint_that_cannot_be_written_is_found_by_the_dry_run(convo, work, monkeypatch):
    import shutil

    usage = shutil.disk_usage(work)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    result = convo(*PLAN, "-q", *settings("name=planned"))
    assert result.code == 7
    assert "free in" in result.err
    assert not [path for path in (work / "runs").iterdir() if path.name.startswith(".convo-new")]


def test_the_terminal_without_unicode_gets_a_plot_too():
    from convo_cli.cli.views.plan_view import _plot

    rates = [(step, step / 4) for step in range(1, 5)]
    plot = _plot(rates, 40, is_unicode=False)
    assert [line.count("#") for line in plot[:-1]] == sorted(line.count("#") for line in plot[:-1])
    assert all(line.isascii() for line in plot)
    assert plot[-1].split() == ["step", "1", "4"]
