"""What the data itself decides about training: masks, history, reasoning, unread text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.commands import settings

SHORT_RUN = settings("training.max_steps=1", "training.warmup_steps=0", "data.validation=[]")
USER = {"role": "user", "content": "Where is the bread?"}
REPLY = {"role": "assistant", "content": "On the second shelf."}
THOUGHT = {**REPLY, "reasoning_content": "The bread moved last week."}
NOTE = "Nobody said this, but it was written down all the same."


def write(path: Path, *dialogues: Any) -> None:
    path.write_text(
        "".join(json.dumps(dialogue) + "\n" for dialogue in dialogues), encoding="utf-8"
    )


def counts(convo, *arguments: object) -> tuple[int, int]:
    """The assistant's targets and the dialogues that a run would be trained on."""
    result = convo(
        "validate-data", "data.jsonl", "--tokenizer", "exports/tiny", "--json", *arguments
    )
    assert result.code == 0, result.err
    training = result.json["preflight"]["training"]
    return training["num_targets_by_role"]["assistant"], training["num_dialogues"]


@pytest.mark.parametrize(
    "mask", [{"weight": 0}, {"weight": 0.0}, {"loss": False}, {"train": False}]
)
def test_masks_of_every_spelling_remove_the_same_targets(convo, work, mask):
    write(work / "data.jsonl", [USER, REPLY, USER, REPLY])
    whole = counts(convo)
    write(work / "data.jsonl", [USER, {**REPLY, **mask}, USER, {**REPLY, "weight": 1}])
    assert counts(convo) == (whole[0] / 2, 1)
    write(work / "data.jsonl", [USER, REPLY, USER, REPLY], {"messages": [USER, REPLY], **mask})
    assert counts(convo) == whole
    result = convo(
        "train", "config.yaml", *SHORT_RUN, *settings("data.train=data.jsonl", "name=masked")
    )
    assert result.code == 0
    assert 'data.jsonl: left out 1 dialogue marked "train": false' in result.err
    started = json.loads((work / "runs/masked/metrics.jsonl").read_text().splitlines()[0])
    assert started["training"]["num_dialogues"] == 1


def test_data_without_a_dialogue_to_train_on_is_refused(convo, work):
    write(work / "data.jsonl", {"messages": [USER, REPLY], "weight": 0})
    result = convo("validate-data", "data.jsonl")
    assert result.code == 3
    assert "error nothing-to-train" in result.out
    assert re.search(r'dialogues left out +1 +"train": false', result.out)
    for config in (
        ["model.scratch.layers=1"],
        ["model.scratch=null", "model.pretrained=exports/tiny"],
    ):
        result = convo(
            "train", "config.yaml", *settings("data.train=data.jsonl", "name=none", *config)
        )
        assert (result.code, "Traceback" in result.err) == (3, False)
    result = convo("evaluate", "runs/tiny", "data.jsonl", "-q")
    assert (result.code, "there is nothing to score" in result.err) == (3, True)


def test_a_mask_with_several_meanings_is_refused_by_every_command(convo, work):
    write(work / "data.jsonl", ["Hello", "Hi!"], [USER, {**REPLY, "mask": 1}])
    message = (
        'data.jsonl:2:119 $[1].mask the key "mask" is refused, because its meaning differs '
        "between tools"
    )
    for command in (
        ["train", "config.yaml", *settings("data.train=data.jsonl", "name=masked")],
        ["evaluate", "runs/tiny", "data.jsonl", "-q"],
    ):
        result = convo(*command)
        assert result.code == 3
        assert f'error: {message}\nhint: write "train": true or "train": false' in result.err
    result = convo("validate-data", "data.jsonl", "--fix", "out.jsonl")
    assert result.code == 3
    assert "left out train-key  1" in result.out
    assert (work / "out.jsonl").read_text() == '["Hello", "Hi!"]\n'


def test_a_history_is_trained_on(convo, work):
    alone = {"instruction": "Thanks!", "output": "You are welcome."}
    write(work / "data.jsonl", alone)
    before, _ = counts(convo)
    write(work / "data.jsonl", {**alone, "history": [[USER["content"], REPLY["content"]]]})
    with_history, _ = counts(convo)
    write(
        work / "data.jsonl",
        [USER, REPLY, {"role": "user", "content": "Thanks!"}, {**REPLY, "train": False}],
    )
    assert with_history == before + counts(convo)[0]


def test_reasoning_needs_a_choice_and_the_message_names_both(convo, work):
    write(work / "data.jsonl", ["Hello", "Hi!"], [USER, THOUGHT])
    train = [
        "train",
        "config.yaml",
        *SHORT_RUN,
        *settings("data.train=data.jsonl", "name=thinking"),
    ]
    for command in (
        train,
        ["validate-data", "data.jsonl"],
        ["evaluate", "exports/tiny", "data.jsonl", "-q"],
    ):
        result = convo(*command)
        said = " ".join((result.out + result.err).split())
        assert result.code == 3
        assert re.search(
            r'data\.jsonl:2:\d+ \$\[1\]\.reasoning_content the key "reasoning_content" contains '
            r"reasoning",
            said,
        )
        assert (
            "--set data.reasoning=drop for train, --reasoning drop for validate-data and evaluate"
            in said
        )
        assert "keep it (trained on as <think>…</think> before the answer) or drop it" in said


def test_reasoning_is_kept_or_dropped_and_counted(convo, work):
    write(work / "data.jsonl", ["Hello", "Hi!"], [USER, REPLY])
    plain = counts(convo)
    write(work / "data.jsonl", ["Hello", "Hi!"], [USER, THOUGHT])
    assert counts(convo, "--reasoning", "drop") == plain
    assert counts(convo, "--reasoning", "keep")[0] > plain[0]
    for choice, done in (("keep", "kept and trained on"), ("drop", "dropped")):
        result = convo("validate-data", "data.jsonl", "--reasoning", choice)
        assert result.code == 0
        assert re.search(rf"turns with reasoning +1 +{done.split()[0]}", result.out)
        record = convo("validate-data", "data.jsonl", "--reasoning", choice, "--json").json[
            "files"
        ][0]
        assert (record["num_reasoning_turns"], record["reasoning"]) == (1, choice)
        # The second run takes the encoded data of the first from the cache.
        for name in ("first", "second"):
            change = settings(
                "data.train=data.jsonl", f"name={choice}-{name}", f"data.reasoning={choice}"
            )
            result = convo("train", "config.yaml", *SHORT_RUN, *change)
            assert result.code == 0
            assert (
                f"data.jsonl: the reasoning of 1 turn is {done} (data.reasoning: {choice})"
                in result.err
            )


def test_a_model_of_a_run_is_evaluated_on_data_as_the_run_reads_it(convo, work):
    write(
        work / "data.jsonl",
        ["Hello", "Hi!"],
        [USER, THOUGHT],
        [{"role": "Ann", "content": "Bye"}, REPLY],
    )
    change = settings(
        "data.train=data.jsonl",
        "name=dropped",
        "data.reasoning=drop",
        "data.speakers.user=[user, ann]",
    )
    assert convo("train", "config.yaml", *SHORT_RUN, *change).code == 0
    checkpoint = next((work / "runs/dropped/checkpoints").glob("step-*"))
    dropped = convo("evaluate", "runs/dropped", "data.jsonl", "--json", "-q").json
    assert (
        convo("evaluate", checkpoint, "data.jsonl", "--json", "-q").json["counts"]
        == dropped["counts"]
    )
    kept = convo(
        "evaluate", "runs/dropped", "data.jsonl", "--reasoning", "keep", "--json", "-q"
    ).json
    assert kept["counts"]["targets"] > dropped["counts"]["targets"]
    # An export does not know the speaker Ann.
    assert convo("evaluate", "exports/tiny", "data.jsonl", "--reasoning", "drop", "-q").code == 3
    write(work / "data.jsonl", ["Hello", "Hi!"], [USER, THOUGHT])
    assert convo("evaluate", "exports/tiny", "data.jsonl", "--reasoning", "drop", "-q").code == 0


def test_fix_obeys_the_choice(convo, work):
    lines = ['["Hello", "Hi!"]\n', json.dumps([USER, THOUGHT]) + "\n"]
    (work / "data.jsonl").write_text("".join(lines))
    result = convo("validate-data", "data.jsonl", "--fix", "out.jsonl")
    assert (result.code, "left out reasoning  1\n  data.jsonl:2:" in result.out) == (3, True)
    assert (work / "out.jsonl").read_text() == lines[0]
    assert "keep their reasoning" not in result.out
    result = convo(
        "validate-data", "data.jsonl", "--fix", "out.jsonl", "--force", "--reasoning", "drop"
    )
    assert result.code == 0
    assert (work / "out.jsonl").read_text() == "".join(lines)
    assert "the lines keep their reasoning: set data.reasoning: drop in the config" in result.out


def test_text_under_an_ignored_key_is_a_warning_in_every_run(convo, work):
    write(
        work / "data.jsonl",
        {"turns": ["Hello", "Hi!"], "note": NOTE},
        {"turns": ["a", "b"], "note": NOTE},
    )
    warning = f'the key "note" is ignored (2 texts of {len(NOTE)} characters on average)'
    result = convo("validate-data", "data.jsonl", "--json")
    (group,) = result.json["files"][0]["problem_groups"]
    assert (result.code, group["code"], group["severity"]) == (0, "unread-text", "warning")
    assert warning in convo("validate-data", "data.jsonl").out
    train = ["train", "config.yaml", "-q", *SHORT_RUN]
    for name in ("first", "second"):
        result = convo(*train, *settings("data.train=data.jsonl", f"name={name}"))
        assert result.code == 0
        assert f"data.jsonl: {warning}" in result.err
    result = convo("resume", "runs/first", "-q", *settings("training.max_steps=2"))
    assert result.code == 0
    assert warning in result.err
    assert warning in convo("evaluate", "runs/first", "data.jsonl", "-q").err
