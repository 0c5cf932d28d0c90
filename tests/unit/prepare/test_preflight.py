"""All dialogues with wrong or missing targets are found before step 1 and named by their line."""

from __future__ import annotations

import numpy as np
import pytest

from convo_cli.data.checks.problem_tally import ProblemTally
from convo_cli.data.dialogue import Dialogue, Role, Turn
from convo_cli.data.problems import Problem
from convo_cli.prepare.preflight import (
    PreflightError,
    count_tokens,
    find_leaks,
    find_untrained,
    tokens_per_dialogue,
)
from convo_cli.text.templates.template import TEMPLATES
from convo_cli.tokens.store import ASSISTANT_TARGET, NO_TARGET, Encoded, Example, TokenStore

FILE = "train.jsonl"


def dialogue(line, *texts, is_trained=True):
    roles: tuple[Role, Role] = ("user", "assistant")
    return Dialogue(
        tuple(Turn(roles[k % 2], text, is_trained) for k, text in enumerate(texts)), line, FILE
    )


def encode(encoder, dialogues, train_on="assistant"):
    return TokenStore.build(
        zip(dialogues, encoder.encode_all(dialogues, train_on), strict=True), [FILE]
    )


def check(encoder, dialogues, store, train_on="assistant"):
    found = find_untrained(dialogues, store, train_on, encoder.stop_ids)
    assert all(problem.line == dialogues[number].line for number, problem in found.items())
    return [(problem.code, problem.line) for problem in found.values()]


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("train_on", ["assistant", "all", "last"])
def test_good_dialogues_pass_under_every_template(make_encoder, sample_dialogues, name, train_on):
    encoder = make_encoder(name)
    chosen = [one for one in sample_dialogues if one.turns[0].role != "system"]
    assert check(encoder, chosen, encode(encoder, chosen, train_on), train_on) == []


def test_dialogues_in_windows_pass_too(make_encoder):
    encoder = make_encoder(max_length=24)
    dialogues = [dialogue(1, *["Hello there!", "Hi! How are you?"] * 5)]
    store = encode(encoder, dialogues)
    assert len(store) > 1
    assert check(encoder, dialogues, store) == []


def test_a_dialogue_without_a_target_is_found(make_encoder):
    encoder = make_encoder()
    dialogues = [
        dialogue(1, "Hi", "Hi"),
        dialogue(2, "Anybody?"),
        dialogue(3, "Hi", "No", is_trained=False),
    ]
    assert check(encoder, dialogues, encode(encoder, dialogues)) == [
        ("no-target", 2),
        ("no-target", 3),
    ]


@pytest.mark.parametrize("train_on", ["assistant", "all", "last"])
def test_an_end_token_that_is_not_a_target_is_found(make_encoder, train_on):
    """The best-known failure: labels masked at the pad token, which is also the end token."""
    encoder = make_encoder()
    dialogues = [dialogue(1, "Hi", "Hi"), dialogue(2, "Hi", "Hello!", "Bye", "Bye!")]
    store = encode(encoder, dialogues, train_on)
    masked = np.where(store.input_ids == encoder.pad_id, NO_TARGET, store.targets)
    masked[: len(store[0].targets)] = store[0].targets
    broken = TokenStore(store.input_ids, masked, store.lengths, store.dialogue_of, store.dialogues)
    assert check(encoder, dialogues, broken, train_on) == [("end-not-trained", 2)]


def test_every_problem_is_counted_and_the_first_are_listed():
    tally = ProblemTally(max_problems=2)
    for line in range(1, 8):
        tally(Problem("no-target", "nothing", column=1, line=line, file=FILE))
    tally(Problem("turn-too-long", "long", column=1, line=9, file=FILE))
    error = PreflightError(tally.groups())
    assert error.exit_code == 3
    assert error.message.splitlines() == [
        "the data cannot be trained on: 8 errors",
        "  train.jsonl:1:1 $ nothing",
        "  train.jsonl:2:1 $ nothing",
        "  5 more like this",
        "  train.jsonl:9:1 $ long",
    ]
    assert error.hint is not None
    assert "dialogue.max_length" in error.hint
    assert "data.speakers" in error.hint or "train_on" in error.hint


def test_the_counts_are_those_of_the_examples(make_encoder):
    encoder = make_encoder(max_length=24)
    dialogues = [dialogue(1, "Hi", "Hi"), dialogue(2, *["Hello there!", "Hi! How are you?"] * 5)]
    store = encode(encoder, dialogues)
    whole = [len(make_encoder(max_length=4096).encode([one])[0][0].input_ids) for one in dialogues]
    counts = count_tokens(store, 24)
    assert (counts.num_dialogues, counts.num_examples, counts.num_over_length) == (2, len(store), 1)
    assert (counts.median_tokens, counts.max_tokens) == (sum(whole) / 2, max(whole))
    assert counts.num_tokens == sum(len(store[k].input_ids) for k in range(len(store))) > sum(whole)
    assert counts.num_targets_by_role["assistant"] == (store.targets == ASSISTANT_TARGET).sum()
    lengths = tokens_per_dialogue(store)
    assert (lengths.min, lengths.max) == (min(whole), max(whole))


def test_validation_dialogues_found_in_training_are_counted_and_placed():
    def store(*dialogues):
        example = Example(np.array([1, 2], np.int32), np.array([0, 1], np.uint8))
        return TokenStore.build(
            [(one, Encoded([example], 2)) for one in dialogues], ["v.jsonl", "w.jsonl"]
        )

    files = {"train": ["t.jsonl", "u.jsonl"], "validation": ["v.jsonl", "w.jsonl"]}
    train = store(
        Dialogue((Turn("user", "A"), Turn("assistant", "B")), 7, "v.jsonl"), dialogue(1, "x", "y")
    )
    clean = store(Dialogue((Turn("user", "A"),), 1, "v.jsonl"))
    assert list(find_leaks({"train": train, "validation": clean}, files)) == []
    leaky = store(
        *[
            Dialogue((Turn("user", "ａ"), Turn("assistant", "b")), line, "w.jsonl")
            for line in range(5)
        ],
        Dialogue((Turn("user", "C"), Turn("assistant", "D")), 5, "w.jsonl"),
    )
    (leak,) = find_leaks({"train": train, "validation": leaky}, files)
    assert leak.message.startswith("the training data also contains 5 of 6 validation dialogues")
    assert "w.jsonl:0 is t.jsonl:7" in leak.examples
