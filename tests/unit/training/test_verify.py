"""The proof of a resume: equal where it is equal, the first difference where it is not, and the run stays as it is."""

from __future__ import annotations

import re
import shutil

import pytest
import torch

from convo_cli.config.load import load_config
from convo_cli.runs.layout import RunDirectory
from convo_cli.training import verify
from convo_cli.training.run import start_run
from convo_cli.training.verify import verify_run
from tests.commands import snapshot


@pytest.fixture(scope="module")
def finished(tmp_path_factory, make_config):
    config = make_config(tmp_path_factory.mktemp("verify"), training={"max_steps": 2}, evaluation={"every_steps": 4})
    return start_run(config, lambda event: None).run_dir


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return RunDirectory(tmp_path / "run")


def proof(run, ignore):
    return verify_run(run.path, load_config(run.config), ignore, num_steps=3)


def test_an_exact_resume_is_found_equal_with_its_evaluation_and_the_run_is_not_touched(run, ignore):
    before = snapshot(run.path)
    verdict = proof(run, ignore)
    assert verdict.difference is None
    assert (verdict.checkpoint, verdict.num_steps, verdict.resumed_after) == ("step-00000002", 3, 1)
    counts = {check.what: check.count for check in verdict.checks}
    assert counts["examples of a step"] == 3
    assert counts["logged values"] == 3 + 1 + 2  # steps, the evaluation at step 4, progress and gradient scale
    assert counts["optimizer tensors"] > counts["weight tensors"] > 20
    assert {name: v for name, v in snapshot(run.path).items() if name != ".lock"} == {
        name: v for name, v in before.items() if name != ".lock"
    }


def _lose_moments(parts, state):
    state.optimizer.state.clear()


def _change_one_weight(parts, state):
    with torch.no_grad():
        state.model.transformer.ln_f.bias[0] += 1e-3


def _count_one_step_too_many(parts, state):
    state.progress.step += 1


def _count_tokens_anew(parts, state):
    state.progress.tokens_seen = 0


@pytest.mark.parametrize(
    ("spoil", "difference"),
    [
        (_lose_moments, "EvaluationDone 4|StepDone 5"),
        (_change_one_weight, "StepDone 4: (loss|grad_norm) is"),
        (_count_one_step_too_many, "step 4 is not the same"),
        (_count_tokens_anew, "StepDone 4: tokens_seen is .* straight, .* after a resume"),
    ],
)
def test_what_a_resume_loses_is_found_and_named(run, ignore, monkeypatch, spoil, difference):
    build_from, built = verify.build_from, []

    def spoilt(*arguments):
        built.append(build_from(*arguments))
        if len(built) == 3:  # the straight run's, the first half's, and then the resumed one
            spoil(*built[-1])
        return built[-1]

    monkeypatch.setattr(verify, "build_from", spoilt)
    verdict = proof(run, ignore)
    assert verdict.difference is not None
    assert re.search(difference, verdict.difference), verdict.difference
