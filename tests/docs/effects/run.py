"""Top level, data, checkpoints and logging."""

from __future__ import annotations

import json

from tests.docs.effects.entry import effect
from tests.docs.effects.observed import gap
from tests.docs.effects.workshop import NAMED, ONE_STEP, PRETRAINED, STEPS, THINKING, VALIDATION

REPLIES = {**VALIDATION, "evaluation.reply_dialogues": 2}


@effect("name", "one", "two", seen_in="the result on stdout, the run directory")
def _(one, two):
    """The run directory has this name."""
    assert [run.answer["run_dir"] for run in (one, two)] == ["runs/one", "runs/two"]
    assert one.run.is_run
    assert two.run.is_run


@effect(
    "output_dir",
    "here",
    "there",
    seen_in="the result on stdout, the run directory",
    given={"name": "tiny"},
)
def _(here, there):
    """The run directory lies in this folder."""
    assert [run.answer["run_dir"] for run in (here, there)] == ["here/tiny", "there/tiny"]
    assert here.run.is_run
    assert there.run.is_run


@effect(
    "seed",
    1,
    2,
    seen_in="weights of checkpoint 0, tokens of each step, samples.jsonl",
    given=REPLIES,
)
def _(one, two):
    """Another seed changes the new weights, the order of dialogues, and which get a reply."""
    assert gap(one.weights(0), two.weights(0)) > 0.01
    assert [step["num_tokens"] for step in one.steps] != [step["num_tokens"] for step in two.steps]
    assert [sample["history"] for sample in one.samples] != [
        sample["history"] for sample in two.samples
    ]


@effect(
    "seed",
    1,
    2,
    seen_in="loss of step 1",
    given={**PRETRAINED, **ONE_STEP, "training.batch_size": 25},
)
def _(one, two):
    """Another seed changes the dropout, and so the loss of the same weights and dialogues."""
    assert gap(one.weights(0), two.weights(0)) == 0.0
    assert one.steps[0]["num_tokens"] == two.steps[0]["num_tokens"]
    assert abs(one.steps[0]["loss"] - two.steps[0]["loss"]) > 1e-4


@effect("deterministic", True, False, seen_in="torch's switch during the steps")
def _(strict, free):
    """Steps use only torch's deterministic algorithms; false: any."""
    assert strict.passes.is_deterministic == {True}
    assert free.passes.is_deterministic == {False}


@effect(
    "data.train",
    ["echo.jsonl"],
    ["echo.jsonl", "train.jsonl"],
    [{"path": "echo.jsonl", "weight": 20}, "train.jsonl"],
    seen_in="dialogues, files and losses by file in metrics.jsonl, run.json",
)
def _(one, both, weighted):
    """The run trains on the dialogues of all these files, on those of a file by its weight."""
    runs = (one, both, weighted)
    assert [run.started["training"]["num_dialogues"] for run in runs] == [3, 28, 28]
    assert "train.jsonl" in both.run.info.read_text()
    assert [[file["weight"] for file in run.started["files"]] for run in runs] == [
        [],
        [1, 1],
        [20, 1],
    ]
    shares = [run.started["files"][0]["share"] for run in (both, weighted)]
    assert shares[0] < 0.5 < shares[1]
    for run, share in ((both, shares[0]), (weighted, shares[1])):
        assert all(len(step["loss_by_file"]) == 2 for step in run.steps)
        targets = [step["num_targets_by_file"] for step in run.steps]
        assert abs(sum(of_echo for of_echo, _ in targets) / sum(map(sum, targets)) - share) < 0.1


@effect(
    "data.test",
    [],
    ["valid.jsonl"],
    seen_in="test.json, evaluations in metrics.jsonl",
    given=ONE_STEP,
)
def _(without, with_file):
    """The finished run is scored on the dialogues of this file; nothing is evaluated before."""
    assert (without.run.test.exists(), with_file.run.test.exists()) == (False, True)
    scores = json.loads(with_file.run.test.read_text(encoding="utf-8"))
    assert scores["step"] == 1
    assert scores["num_targets"] == sum(with_file.started["test"]["num_targets_by_role"].values())
    assert with_file.events("evaluation") == without.events("evaluation") == []


@effect("data.validation", [], ["valid.jsonl"], seen_in="evaluations in metrics.jsonl")
def _(without, with_file):
    """The run is evaluated on the dialogues of these files; an empty list means no evaluation."""
    assert without.evaluated == []
    assert with_file.evaluated == [STEPS // 2, STEPS]
    assert with_file.started["validation"]["num_dialogues"] == 25


@effect(
    "data.validation_split",
    None,
    0.2,
    seen_in="dialogues and evaluations in metrics.jsonl",
    given={"evaluation.reply_dialogues": 0},
)
def _(without, split):
    """The run is evaluated on this share of the training dialogues, and not trained on it."""
    assert (without.evaluated, split.evaluated) == ([], [STEPS // 2, STEPS])
    whole, rest = (run.started["training"] for run in (without, split))
    held_back = split.started["validation"]["num_dialogues"]
    assert rest["num_held_back"] == held_back > 0 == whole["num_held_back"]
    assert rest["num_dialogues"] + held_back == whole["num_dialogues"]


@effect(
    "data.first_speaker", "user", "assistant", seen_in="roles in samples.jsonl",
    given={**REPLIES, "data.train": ["long.jsonl"], "data.validation": ["long.jsonl"]},
)  # fmt: skip
def _(user, assistant):
    """The first utterance of a plain list belongs to this side."""
    assert user.first_roles == {"user"}
    assert assistant.first_roles == {"assistant"}


@effect(
    "data.speakers.user", ["user"], ["user", "guest"],
    seen_in="the refusal, turns in samples.jsonl",
    given={**NAMED, "data.speakers.assistant": ["waiter"], "data.speakers.system": ["narrator"]},
)  # fmt: skip
def _(without, with_guest):
    """Turns of a speaker of this name are the user's; a name without a role is refused."""
    assert 'the speaker "guest" has no role' in without.result.err
    assert with_guest.samples[0]["history"][1] == {
        "role": "user",
        "content": "What do you have today?",
    }


@effect(
    "data.speakers.assistant", ["assistant"], ["waiter"],
    seen_in="the refusal, references in samples.jsonl",
    given={**NAMED, "data.speakers.user": ["guest"], "data.speakers.system": ["narrator"]},
)  # fmt: skip
def _(without, with_waiter):
    """Turns of a speaker of this name are the assistant's: replies are compared with them."""
    assert 'the speaker "waiter" has no role' in without.result.err
    assert with_waiter.samples[0]["reference"] == "Soup and bread, and tea."


@effect(
    "data.speakers.system", ["system"], ["narrator"], seen_in="the refusal, roles in samples.jsonl",
    given={**NAMED, "data.speakers.user": ["guest"], "data.speakers.assistant": ["waiter"]},
)  # fmt: skip
def _(without, with_narrator):
    """Turns of a speaker of this name are the system's."""
    assert 'the speaker "narrator" has no role' in without.result.err
    assert with_narrator.first_roles == {"system"}


@effect(
    "data.reasoning",
    None,
    "keep",
    "drop",
    seen_in="the refusal, references in samples.jsonl",
    given=THINKING,
)
def _(null, keep, drop):
    """Reasoning is kept in the assistant's text or dropped; null refuses dialogues with it."""
    assert 'the key "reasoning_content" contains reasoning' in null.result.err
    assert keep.samples[0]["reference"] == "<think>\nTwo and two make four.\n</think>\n\nFour."
    assert drop.samples[0]["reference"] == "Four."


@effect(
    "checkpoints.every_steps", None, 2, seen_in="checkpoints/", given={"evaluation.every_steps": 3}
)
def _(null, two):
    """A checkpoint is saved at every multiple of this step; null: of evaluation.every_steps."""
    assert null.run.checkpoint_steps() == [0, 3, 6]
    assert two.run.checkpoint_steps() == [0, 2, 4, 6]


@effect("checkpoints.keep", 1, 3, seen_in="checkpoints/", given={"checkpoints.every_steps": 1})
def _(one, three):
    """The newest checkpoints are kept, up to this number."""
    assert one.run.checkpoint_steps() == [6]
    assert three.run.checkpoint_steps() == [4, 5, 6]


@effect(
    "checkpoints.keep_best",
    1,
    3,
    seen_in="checkpoints/",
    given={
        **VALIDATION,
        "evaluation.every_steps": 1,
        "checkpoints.keep": 1,
        "training.learning_rate": 1.0,
    },
)
def _(one, three):
    """The checkpoints with the best scores are kept, up to this number."""
    for ran, number in ((one, 1), (three, 3)):
        scores = {record["step"]: record["loss"] for record in ran.events("evaluation")}
        best = sorted(scores, key=scores.__getitem__)[:number]
        assert set(ran.run.checkpoint_steps()) == {*best, STEPS}


@effect("logging.every_steps", 2, 3, seen_in="step lines on stderr, steps in metrics.jsonl")
def _(two, three):
    """The log shows the first step and every multiple of this step; metrics.jsonl has all."""
    assert two.shown(r"step (\d+)/") == ["1", "2", "4", "6"]
    assert three.shown(r"step (\d+)/") == ["1", "3", "6"]
    assert len(two.steps) == len(three.steps) == STEPS


@effect("logging.tensorboard", False, True, seen_in="tensorboard/")
def _(off, on):
    """TensorBoard events are written into the run directory."""
    assert not off.run.tensorboard.exists()
    assert list(on.run.tensorboard.glob("*tfevents*"))


@effect("logging.plots", False, True, seen_in="plots/")
def _(off, on):
    """The schedule and the loss curves are drawn as PNG, and the run has a page."""
    assert not off.run.plots.exists()
    assert not off.run.report.exists()
    assert on.run.report.exists()
    assert {path.name for path in on.run.plots.glob("*")} == {"learning_rate.png", "loss.png"}
