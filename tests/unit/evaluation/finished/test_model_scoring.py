"""Scores of a finished model: every target once, however it is grouped; paired differences."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from convo_cli.config.schema import DataConfig, ScratchConfig
from convo_cli.errors import DataError, DivergedError
from convo_cli.evaluation.finished.evaluated_files import OF_THE_FILES, open_files
from convo_cli.evaluation.finished.file_likelihood import (
    NUM_TURNS,
    choose_batching,
    measure_likelihood,
    paired_likelihood_intervals,
)
from convo_cli.evaluation.finished.model_scoring import compare, score_model
from convo_cli.events import Notice
from convo_cli.metrics.metric_table import METRICS
from convo_cli.model.create import build_scratch_model
from convo_cli.model.decoding.generator import Generator

LINES = [
    ["Hello", "Hi!"],
    ["How are you?", "Fine.", "Good", "And you? " * 5],
    [text for number in range(8) for text in (f"Question {number}?", f"Answer {number} it is.")],
    ["Well, " * 90, "I see " * 90, "Yes?", "No."],
    {"messages": [{"role": "assistant", "content": "Welcome!"}, {"role": "user", "content": "Hi"}]},
]


@pytest.fixture(scope="module")
def encoder(make_encoder):
    return make_encoder()


@pytest.fixture
def model(encoder):
    size = ScratchConfig(layers=1, width=16, heads=2, context=128)
    return build_scratch_model(size, encoder, seed=0)


@pytest.fixture
def generator(model, encoder):
    return Generator(model, encoder)


@pytest.fixture
def data_of(tmp_path):
    """Writes dialogues into files, one for each list, and returns the data config."""

    def write(*files):
        paths = []
        for number, lines in enumerate(files):
            paths.append(tmp_path / f"{number}.jsonl")
            paths[-1].write_text("".join(json.dumps(line) + "\n" for line in lines))
        return DataConfig(train=tuple(map(str, paths)))

    return write


def score(generator, data, emit, *, num_replies=0):
    return score_model(generator, data, num_replies=num_replies, max_new_tokens=3, emit=emit)


def likelihood_of(generator, data, ignore):
    with open_files(
        data, generator.encoder, num_questions=0, collects_replies=False, emit=ignore
    ) as files:
        batching = choose_batching(generator, files.store, ignore)
        return measure_likelihood(generator, batching, files, ignore)


def test_files_are_scored_as_one_whole_and_each_by_itself(generator, data_of, ignore):
    whole = score(generator, data_of(LINES[:2], LINES[2:4]), ignore).likelihood
    parts = [score(generator, data_of(lines), ignore) for lines in (LINES[:2], LINES[2:4])]
    for part, of_file in zip(parts, whole.by_file, strict=True):
        assert of_file.num_targets == part.result.num_targets
        assert of_file.loss == pytest.approx(part.result.loss, rel=1e-5)
    num = sum(one.num_targets for one in whole.by_file)
    assert whole.assistant.num_targets == num
    expected = sum(one.loss * one.num_targets for one in whole.by_file) / num
    assert whole.assistant.loss == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("template", ["turns", "convmodel", "chatml"])
def test_a_turn_has_the_same_number_and_targets_in_windows_and_in_parts(
    make_encoder, data_of, ignore, template
):
    """However short the window: each target counts once, and under the turn it belongs to."""
    counts = []
    for max_length in (1024, 128, 48):
        encoder = make_encoder(template, max_length=max_length)
        size = ScratchConfig(layers=1, width=16, heads=2, context=max_length)
        generator = Generator(build_scratch_model(size, encoder, seed=0), encoder)
        found = likelihood_of(generator, data_of(LINES), ignore)
        counts.append([one and one.num_targets for one in found.by_turn])
        assert sum(filter(None, counts[-1])) == found.assistant.num_targets
    assert counts[0] == counts[1] == counts[2]


def test_turns_are_counted_from_the_first_scored_assistant_turn(generator, data_of, ignore):
    """Each reply has another number of words, so its targets tell which turn it is."""
    lengths = [1, 2, 3, 4, 5, 6, 7]
    line = [text for length in lengths for text in ("Go on", " ".join(["and"] * length))]
    found = likelihood_of(generator, data_of([line]), ignore)
    (ids,) = generator.encoder.text_ids(["and"])
    sizes = [one.num_targets for one in found.by_turn]
    ones = [len(generator.encoder.text_ids([" ".join(["and"] * k)])[0]) + 1 for k in lengths]
    assert len(ids) >= 1
    assert sizes == [*ones[: NUM_TURNS - 1], sum(ones[NUM_TURNS - 1 :])]


def test_the_ends_of_replies_are_as_many_as_the_replies(generator, data_of, ignore):
    found = likelihood_of(generator, data_of(LINES[:3]), ignore)
    num = found.assistant.num_targets
    num_ends = 1 + 2 + 8
    mean = (found.end_nll * num_ends + found.inner_nll * (num - num_ends)) / num
    assert mean == pytest.approx(found.assistant.loss, rel=1e-5)


def test_user_turns_count_only_in_the_loss_of_everything(generator, data_of, ignore):
    found = likelihood_of(generator, data_of(LINES[:1]), ignore)
    turned = [{"role": "assistant", "content": "Hello"}, {"role": "user", "content": "Hi!"}]
    other = likelihood_of(generator, data_of([{"messages": turned}]), ignore)
    assert found.everything.num_targets == other.everything.num_targets
    assert found.assistant.num_targets < found.everything.num_targets


def test_bits_per_byte_and_perplexity_per_word_are_those_of_the_texts(generator, data_of, ignore):
    lines = [["Hi", "Größe, ja"], ["Hi", "Yes.", "Why?", "No reason at all."]]
    found = likelihood_of(generator, data_of(lines), ignore)
    nll = found.assistant.loss * found.assistant.num_targets
    num_bytes = len("Größe, ja".encode()) + len("Yes.") + len("No reason at all.")
    assert found.sums[:, 2].sum() == num_bytes == 11 + 4 + 17
    assert found.scores["bits-per-byte"] == pytest.approx(nll / math.log(2) / num_bytes)
    assert found.scores["word-perplexity"] == pytest.approx(math.exp(nll / (3 + 2 + 5)))
    assert found.scores["loss"] == pytest.approx(found.assistant.loss)
    assert found.scores["perplexity"] == pytest.approx(found.assistant.perplexity)


def test_an_interval_is_around_its_score_and_one_dialogue_has_none(generator, data_of, ignore):
    found = likelihood_of(generator, data_of(LINES * 4), ignore)
    for name, (low, high) in found.intervals().items():
        assert low < found.scores[name] < high
    assert likelihood_of(generator, data_of(LINES[:1]), ignore).intervals() == {}


def test_a_model_differs_from_itself_by_nothing_and_from_a_worse_one_for_certain(
    generator, encoder, data_of, ignore
):
    data = data_of(LINES * 4)
    one = score(generator, data, ignore, num_replies=6)
    same = compare(one, one)
    assert {name for name, found in same.items() if found.value} == set()
    assert {found.interval for found in same.values()} <= {(0.0, 0.0), None}
    with torch.no_grad():
        for weight in generator.model.parameters():
            weight.mul_(8)
    worse = score(generator, data, ignore, num_replies=6)
    differences = compare(worse, one)
    assert {"loss", "perplexity", "bits-per-byte", "word-perplexity", *METRICS} == set(differences)
    low, high = differences["loss"].interval
    assert 0 < low < differences["loss"].value < high
    wide = [high - low for low, high in (one.likelihood_intervals["loss"],)]
    assert np.isfinite(wide).all()
    assert paired_likelihood_intervals(worse.likelihood, one.likelihood)["loss"] == (low, high)


def test_models_with_other_tokens_are_compared_per_byte_and_per_word(
    generator, make_encoder, data_of, ignore
):
    encoder = make_encoder("chatml")
    size = ScratchConfig(layers=1, width=16, heads=2, context=128)
    other = Generator(build_scratch_model(size, encoder, seed=0), encoder)
    data = data_of(LINES)
    found = compare(*(score(one, data, ignore) for one in (generator, other)))
    assert set(found) == {"bits-per-byte", "word-perplexity"}


def test_a_model_that_cannot_end_a_reply_is_found_and_an_untrained_one_is_not(
    generator, data_of, ignore
):
    healthy = score(generator, data_of(LINES), ignore, num_replies=10)
    assert healthy.result.findings == ()
    stop_ids = torch.tensor(generator.encoder.stop_ids)
    generator.model.lm_head.register_forward_hook(
        lambda module, inputs, logits: logits.index_fill(-1, stop_ids, -20.0)
    )
    broken = score(generator, data_of(LINES), ignore, num_replies=10)
    (finding,) = broken.result.findings
    assert finding.kind == "end-token"
    assert "0% of the replies stop by themselves" in finding.message
    assert score(generator, data_of(LINES), ignore).result.findings == ()  # without replies


def test_the_first_assistant_turns_get_a_reply_and_floors_come_from_other_dialogues(
    generator, data_of, ignore
):
    scores = score(generator, data_of(LINES), ignore, num_replies=4)
    assert [reply.reference for reply in scores.result.samples] == [
        "Hi!", "Fine.", ("And you? " * 5).strip(), "Answer 0 it is.",
    ]  # fmt: skip
    assert set(scores.result.floors) == {"constant", "echo", "random"}
    assert scores.floors.source == OF_THE_FILES
    assert OF_THE_FILES in scores.floors.sentence
    assert scores.leak.num_trained_on is None
    every = score(generator, data_of(LINES), ignore, num_replies=1000)
    assert len(every.replies) == 1 + 2 + 8 + 1


def test_a_turn_to_answer_that_is_longer_than_the_window_has_no_reply_and_a_warning(
    generator, data_of
):
    events = []
    scores = score(generator, data_of(LINES[3:4]), events.append, num_replies=5)
    assert list(scores.replies) == [1]
    warnings = [one.message for one in events if isinstance(one, Notice) and one.is_warning]
    assert warnings == [
        "no reply to 1 of 2 turns: the turn to answer is longer than the model's window"
    ]


@pytest.mark.parametrize(
    "turn", [{"role": "user"}, {"role": "system"}, {"role": "assistant", "train": False}]
)
def test_files_without_a_scored_assistant_turn_are_refused(generator, data_of, ignore, turn):
    with pytest.raises(DataError, match=r"0\.jsonl"):
        score(generator, data_of([{"messages": [{"content": "Hello?", **turn}]}]), ignore)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_an_error_not_a_score(generator, data_of, ignore, bad):
    with torch.no_grad():
        generator.model.transformer.ln_f.weight[0] = bad
    with pytest.raises(DivergedError, match="the loss on the evaluation data is nan"):
        score(generator, data_of(LINES), ignore)
