"""The number of processes changes nothing but rounding: losses, gradients, weights and scores.

AdamW's epsilon is 1e-4, because at 1e-8 it turns the rounding noise of a gradient that is zero into
whole steps.
"""

from __future__ import annotations

import json
import math

import pytest

from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.logs.final_scores import read_final_scores
from convo_cli.storage.sealed import file_sha256
from tests.conftest import SAMPLE_DATA
from tests.worlds import (
    evaluate,
    require_equal_scores,
    require_equal_steps,
    require_equal_weights,
    train_alone,
    train_in_world,
)

SIZE = {"layers": 2, "width": 32, "heads": 2, "context": 128, "dropout": 0.0}
TEST_DATA = str(SAMPLE_DATA / "test.jsonl")
CASES = {
    "packed": {"evaluation": {"every_steps": 4, "reply_dialogues": 5}},
    "padded": {"training": {"packing": "off"}, "dialogue": {"train_on": "all"}},
    "accumulated": {
        "training": {"packing": "off", "micro_batch_size": 2, "batch_size": 7},
        "dialogue": {"train_on": "last"},
    },
    "tokens": {"training": {"batch_size": None, "batch_tokens": 200, "micro_batch_size": 1}},
    "curriculum": {"dialogue": {"user_turns_until": 0.5}},
    "one example": {"training": {"batch_size": 1}},  # leaves the other processes without any
}


def _config(make_config, folder, case):
    changes = {section: dict(values) for section, values in CASES[case].items()}
    training = {"max_steps": 8, "epsilon": 1e-4, **changes.pop("training", {})}
    data = {"test": [TEST_DATA]} if case == "packed" else {"validation": []}
    if case == "accumulated":
        data["train"] = [str(SAMPLE_DATA / "valid.jsonl"), TEST_DATA]
    name = case.replace(" ", "-")
    return make_config(
        folder, name=name, model={"scratch": SIZE}, training=training, data=data, **changes
    )


ENDS = {
    "loss": ["step 3: the loss is nan", 4],
    "gradient": ["step 3: the gradient is ", 4],
    "stop file": ["3: stopped", 0],
    "none": [
        "4: validation loss did not improve",
        0,
    ],  # evaluates every second step, and stops when nothing improves
}
"""End of every process after a fault in one."""


def _with_fault(make_config, folder, fault):
    training = {"max_steps": 8, "packing": "off"}
    evaluation = {"every_steps": 2, "early_stopping": {"patience": 1, "min_delta": 9}}
    without = {"data": {"validation": []}} if fault != "none" else {"evaluation": evaluation}
    config = make_config(
        folder, name=fault.replace(" ", "-"), model={"scratch": SIZE}, training=training, **without
    )
    return {"train": config, "fault": fault}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("worlds")


@pytest.fixture(scope="module")
def alone(make_config, folder):
    """Every case, trained by one process, and the first 5 steps of a run that is resumed."""
    seen = {case: train_alone(_config(make_config, folder / "1", case)) for case in CASES}
    early = _config(make_config, folder / "1", "padded")
    training = early.training.model_copy(update={"max_steps": 5, "schedule_steps": 8})
    train_alone(early.model_copy(update={"training": training, "name": "early"}))
    return seen


@pytest.fixture(scope="module")
def together(make_config, folder, alone):
    """The same by two processes, one case twice, and the rest of the resumed run."""
    runs = {case: _config(make_config, folder / "2", case) for case in CASES}
    runs["again"] = runs["accumulated"].model_copy(update={"name": "again"})
    finished = folder / "1" / "runs" / "packed"
    (finished / "test.json").rename(folder / "test.json")  # so that a resume scores it again
    others = {
        "early": str(folder / "1" / "runs" / "early"),
        "finished": str(finished),
        "evaluated": [str(finished), TEST_DATA],
        **{fault: _with_fault(make_config, folder / "2", fault) for fault in ENDS},
    }
    return train_in_world(2, {**runs, **others}, folder / "task-2")


def _run(folder, name):
    return folder / "runs" / name.replace(" ", "-")


def _require_equal(one, other, folder, size, case):
    require_equal_steps(one, other)
    require_equal_weights(_run(folder / "1", case), _run(folder / str(size), case))


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_like_one(alone, together, folder, case):
    _require_equal(alone[case], together[case], folder, 2, case)


def test_the_law_can_fail(alone):
    """The cases differ from each other by far more than rounding."""
    losses = [seen["steps"][-1][0] for seen in alone.values()]
    gaps = [abs(a - b) for k, a in enumerate(losses) for b in losses[:k]]
    assert min(gaps) > 1e-4


def test_two_processes_score_like_one(alone, together):
    require_equal_scores(alone["packed"], together["packed"], num_replies=5)


def test_two_processes_score_the_test_data_like_one(together, folder):
    """At the end of their own run, and of a finished one that lost its scores."""
    one = json.loads((folder / "test.json").read_text())
    for home in ("1", "2"):
        run = RunDirectory(folder / home / "runs" / "packed")
        other = read_final_scores(run)
        assert other.num_targets == one["num_targets"]
        assert math.isclose(other.loss, one["loss"], rel_tol=1e-5)
        assert other.metrics == pytest.approx(one["metrics"])
        assert (other.num_replies, other.step) == (one["num_replies"], one["step"])


def test_two_processes_evaluate_like_one(alone, together, folder):
    """Scores, intervals, floors, findings and the leak, in total and by turn, file and dialogue."""
    one = evaluate(str(folder / "1" / "runs" / "packed"), TEST_DATA)
    other = together["evaluated"]
    assert other["replies"] == one["replies"]
    assert len(one["replies"]) == 20
    _require_close(other["shown"], one["shown"])


def _require_close(one, other):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            _require_close(value, other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            _require_close(*pair)
    else:
        assert one == (pytest.approx(other, rel=1e-5) if isinstance(other, float) else other)


def test_an_error_or_a_stop_in_one_process_is_one_in_all(together):
    expected = ["DataError dialogues in 1 add some", "stopped"]
    assert together["disturbed"] == [expected] * 2


@pytest.mark.parametrize("fault", ENDS)
def test_all_processes_end_at_the_step_of_a_fault_in_one(together, fault):
    first, last = together[fault]["ends"]
    begin, code = ENDS[fault]
    assert first[0].startswith(begin)
    assert last[0].startswith(begin)
    assert first[1] == last[1] == code


def test_a_world_repeats_its_own_bits(together, folder):
    first, again = (
        file_sha256(RunDirectory(_run(folder / "2", name)).checkpoint(8) / "model.safetensors")
        for name in ("accumulated", "again")
    )
    assert first == again


def test_two_processes_continue_the_run_of_one(alone, together, folder):
    """Steps 6 to 8 of a run whose first five were taken by one process."""
    assert [step[0] for step in together["early"]["steps"]] == pytest.approx(
        [step[0] for step in alone["padded"]["steps"][5:]], rel=1e-5
    )


@pytest.mark.slow
def test_four_processes_train_like_one(make_config, folder, alone):
    runs = {case: _config(make_config, folder / "4", case) for case in CASES}
    seen = train_in_world(4, runs, folder / "task-4")
    for case in CASES:
        _require_equal(alone[case], seen[case], folder, 4, case)
