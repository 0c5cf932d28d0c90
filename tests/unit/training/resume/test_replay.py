"""The proof of a resume: equality, the first difference if there is one, and an unchanged run."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from convo_cli.config.load import apply_overrides, load_config
from convo_cli.errors import ChangedError, DiskError
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.provenance.execution import Change
from convo_cli.runs.provenance.run_info import read_run_info, write_provenance
from convo_cli.storage.sealed import MANIFEST_FILE, file_sha256
from convo_cli.training.resume import replay
from convo_cli.training.resume.replay import verify_run
from convo_cli.training.run import start_run
from tests.commands import snapshot


@pytest.fixture(scope="module")
def finished(tmp_path_factory, make_config):
    config = make_config(
        tmp_path_factory.mktemp("verify"), training={"max_steps": 2}, evaluation={"every_steps": 4}
    )
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
    assert (verdict.compared_with, verdict.reason) == (None, "--steps was given")
    counts = {check.what: check.count for check in verdict.checks}
    assert counts["examples of a step"] == 3
    # Steps, the evaluation at step 4, progress and gradient scale.
    assert counts["logged values"] == 3 + 1 + 2
    assert counts["optimizer tensors"] > counts["weight tensors"] > 20
    assert {name: v for name, v in snapshot(run.path).items() if name != ".lock"} == {
        name: v for name, v in before.items() if name != ".lock"
    }


def test_the_validation_data_is_not_read_again(run, ignore, monkeypatch):
    """Tokens and reply dialogues come from the cache, which stays where the run was trained."""
    shutil.copytree(run.path, again := Path(load_config(run.config).output_dir) / "again")

    def fail(*arguments):
        raise AssertionError(arguments)

    monkeypatch.setattr("convo_cli.prepare.inputs.read_unchanged", fail)
    assert proof(RunDirectory(again), ignore).difference is None


def test_a_key_that_is_settled_in_the_checkpoints_is_refused(run, ignore):
    config = load_config(run.config, ["dialogue.max_length=64"])
    with pytest.raises(
        ChangedError, match=r"^dialogue\.max_length is 64, but the run was started with 128"
    ):
        verify_run(run.path, config, ignore)


def test_a_curriculum_ends_where_it_ended_in_the_run_and_not_by_the_steps_that_are_taken_again(
    tmp_path, make_config, ignore
):
    """User turns are targets up to step 4.2 of 6; for a run of 4 steps that would be step 2.8."""
    config = make_config(tmp_path, dialogue={"user_turns_until": 0.7})
    verdict = verify_run(start_run(config, ignore).run_dir, config, ignore)
    assert (verdict.compared_with, verdict.difference) == ("step-00000006", None)


def test_early_stopping_does_not_end_the_steps_that_are_taken_again(tmp_path, make_config, ignore):
    """The evaluation at step 9, the third of the four steps, uses up the patience."""
    stopping = {"patience": 1, "min_delta": 9.0}
    config = make_config(
        tmp_path,
        training={"max_steps": 12},
        evaluation={"every_steps": 3, "early_stopping": stopping},
    )
    result = start_run(config, ignore)
    assert result.reason == "validation loss did not improve in 1 evaluation"
    verdict = verify_run(result.run_dir, config, ignore, num_steps=4)
    assert (verdict.checkpoint, verdict.difference) == ("step-00000006", None)
    assert {check.what: check.count for check in verdict.checks}["examples of a step"] == 4


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
        (_count_tokens_anew, "StepDone 4: tokens_seen is .* without a resume, .* with a resume"),
    ],
)
def test_what_a_resume_loses_is_found_and_named(run, ignore, monkeypatch, spoil, difference):
    build_from, built = replay.build_from, []

    def spoilt(*arguments):
        built.append(build_from(*arguments))
        if len(built) == 3:  # the straight run's, the first half's, and then the resumed one
            spoil(*built[-1])
        return built[-1]

    monkeypatch.setattr(replay, "build_from", spoilt)
    verdict = proof(run, ignore)
    assert verdict.difference is not None
    assert re.search(difference, verdict.difference), verdict.difference


# Against the run's own files


@pytest.fixture(scope="module")
def longer(tmp_path_factory, make_config):
    """A run with checkpoints at steps 3 and 6, each evaluated with two replies."""
    return start_run(make_config(tmp_path_factory.mktemp("longer")), lambda event: None).run_dir


@pytest.fixture
def own(longer, tmp_path):
    shutil.copytree(longer, tmp_path / "run")
    return RunDirectory(tmp_path / "run")


def test_the_steps_before_the_newest_checkpoint_are_taken_again_and_compared_with_the_run(
    own, ignore
):
    before = snapshot(own.path)
    verdict = verify_run(own.path, load_config(own.config), ignore)
    assert verdict.difference is None
    assert (verdict.checkpoint, verdict.compared_with) == ("step-00000003", "step-00000006")
    assert (verdict.num_steps, verdict.resumed_after) == (3, 1)
    assert "a checkpoint before step-00000006, and nothing changed between" in verdict.reason
    counts = {check.what: check.count for check in verdict.checks}
    # Steps, an evaluation with two replies, the gradient scale.
    assert counts["logged values"] == 3 + 1 + 2 + 1
    assert counts["optimizer tensors"] > counts["weight tensors"] > 20
    assert {name: v for name, v in snapshot(own.path).items() if name != ".lock"} == {
        name: v for name, v in before.items() if name != ".lock"
    }


def _other_weight(own):
    _change_tensor(own, "model.safetensors", "transformer.ln_f.bias")


def _other_moment(own):
    _change_tensor(own, "optimizer.safetensors", "transformer.ln_f.bias|exp_avg")


def _change_tensor(own, file, name):
    """Change the last bit of one number, and seal the file again."""
    folder = own.checkpoint(6)
    tensors = load_file(folder / file)
    tensors[name].view(torch.int32)[0] += 1
    save_file(tensors, folder / file, metadata={"format": "pt"})
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    manifest["files"][file] = {
        "size": (folder / file).stat().st_size,
        "sha256": file_sha256(folder / file),
    }
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest))


def _other_loss(own):
    _change_log(
        own.metrics, lambda record: record["event"] == "step" and record["step"] == 5, "loss", 1.5
    )


def _other_evaluation(own):
    _change_log(
        own.metrics,
        lambda record: record["event"] == "evaluation" and record["step"] == 6,
        "loss",
        1.5,
    )


def _other_reply(own):
    _change_log(
        own.samples, lambda record: record["step"] == 6 and record["index"] == 1, "reply", "Hm."
    )


def _change_log(file, is_it, key, value):
    records = [json.loads(line) for line in file.read_text().splitlines()]
    for record in records:
        if is_it(record):
            record[key] = value
    file.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (_other_weight, "transformer.ln_f.bias is not the same in the run and when taken again"),
        (
            _other_moment,
            "exp_avg of transformer.ln_f.bias is not the same in the run and when taken again",
        ),
        (_other_loss, r"step 5: loss is 1\.5 in the run, \d.* when taken again"),
        (_other_evaluation, r"evaluation 6: loss is 1\.5 in the run, \d.* when taken again"),
        (_other_reply, r"sample 6 number 1: reply is Hm\. in the run, .* when taken again"),
    ],
)
def test_what_is_not_as_in_the_run_is_found_and_named(own, ignore, change, difference):
    change(own)
    verdict = verify_run(own.path, load_config(own.config), ignore)
    assert verdict.compared_with == "step-00000006"
    assert re.fullmatch(difference, verdict.difference, re.DOTALL), verdict.difference


def test_lines_that_the_log_lost_are_not_compared(own, ignore):
    own.metrics.write_text("".join(own.metrics.read_text().splitlines(keepends=True)[:-3]))
    own.samples.unlink()
    verdict = verify_run(own.path, load_config(own.config), ignore)
    assert verdict.difference is None
    assert {check.what: check.count for check in verdict.checks}["logged values"] < 7


def test_a_line_without_a_step_is_not_compared_and_a_log_that_is_a_directory_is_an_error(
    own, ignore
):
    own.metrics.write_text(
        own.metrics.read_text()
        + '{"event": "step", "step": null}\n{"event": "step", "step": "5"}\n'
    )
    assert verify_run(own.path, load_config(own.config), ignore).difference is None
    own.metrics.unlink()
    own.metrics.mkdir()
    with pytest.raises(DiskError, match=r"metrics\.jsonl: not a regular file, but a directory"):
        verify_run(own.path, load_config(own.config), ignore)


@pytest.mark.parametrize(("step", "is_between"), [(0, False), (3, False), (4, True), (6, True)])
def test_steps_between_which_the_run_changed_are_not_compared_with_it(
    own, ignore, step, is_between
):
    """A change at step 3 applies to all later steps, so these can be taken again."""
    info = read_run_info(own)
    write_provenance(
        own, info.model_copy(update={"changes": (Change(step=step, message="seed: 1 -> 42"),)})
    )
    verdict = verify_run(own.path, load_config(own.config), ignore)
    assert verdict.difference is None
    assert (verdict.compared_with is None) == is_between
    if is_between:
        assert verdict.reason == f"the run changes at step {step} (seed: 1 -> 42)"
        assert (verdict.checkpoint, verdict.num_steps) == ("step-00000006", 4)


def test_what_the_command_itself_changes_is_a_change_too(own, ignore):
    config = apply_overrides(load_config(own.config), ["training.learning_rate=1e-4"])
    verdict = verify_run(own.path, config, ignore)
    assert verdict.reason == "the run changes at step 6 (training.learning_rate: 0.001 -> 0.0001)"
    assert (verdict.compared_with, verdict.difference) == (None, None)
    assert read_run_info(own).changes == ()


def test_a_run_with_one_whole_checkpoint_is_compared_with_itself(own, ignore):
    shutil.rmtree(own.checkpoint(0), ignore_errors=True)
    (own.checkpoint(3) / "model.safetensors").unlink()
    verdict = verify_run(own.path, load_config(own.config), ignore)
    assert verdict.reason == "the run has no intact checkpoint before step-00000006"
    assert (verdict.checkpoint, verdict.compared_with, verdict.difference) == (
        "step-00000006",
        None,
        None,
    )
