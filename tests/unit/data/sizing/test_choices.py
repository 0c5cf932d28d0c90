from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convo_cli.config.load import build_config
from convo_cli.config.presets import PRESETS, SCRATCH
from convo_cli.data.sizing.choices import (
    EPOCHS,
    MAX_EPOCHS,
    MAX_TOKENS,
    MAX_VOCABULARY,
    DataSize,
    Sizing,
    size_for,
)
from tests.cases import num_examples

SMALL = DataSize(60, 22_000, 61, 1076, 242)
NO_VALIDATION = DataSize(0, 0, 0, 0, 0)


def sized(size: DataSize, name: str = "scratch", validation: DataSize = NO_VALIDATION) -> Sizing:
    return size_for(PRESETS[name].with_data(["a"], ["b"]), size, validation, names=["a"])


sizes = st.builds(
    lambda dialogues, length, characters, long, turn, is_exact: DataSize(
        dialogues, dialogues * length, characters, long, turn, is_exact
    ),
    st.integers(1, 10**9),
    st.integers(1, 10**6),
    st.integers(0, 10**5),
    st.integers(0, 10**7),
    st.integers(0, 10**7),
    st.booleans(),
)


@settings(max_examples=num_examples(200), deadline=None)
@given(size=sizes, validation=sizes, name=st.sampled_from(list(PRESETS)))
def test_whatever_the_data_the_sized_preset_is_a_config(
    size: DataSize, validation: DataSize, name: str
) -> None:
    sizing = sized(size, name, validation)
    config = sizing.apply(PRESETS[name].with_data(["a"], ["b"])).config()
    assert set(sizing.reasons) == set(sizing.values)
    assert "\n" not in sizing.summary
    steps, batch = config.training.max_steps, config.training.batch_size
    assert batch is not None
    assert 400 <= config.tokenizer.vocab_size <= MAX_VOCABULARY
    if steps is not None:
        assert config.training.warmup_steps <= steps / 10
    if name == "scratch":
        assert steps is not None
        assert steps * batch <= EPOCHS * max(size.num_dialogues, size.num_bytes)


def test_a_new_model_sees_a_small_file_some_times_and_of_a_large_one_what_an_hour_allows() -> None:
    small = sized(SMALL).values
    assert small["training.max_steps"] * small["training.batch_size"] == EPOCHS * 60
    large = DataSize(1_000_000, 435_000_000, 64, 1152, 1121, is_exact=False)
    values = sized(large).values
    tokens = values["training.max_steps"] * values["training.batch_size"] * 435 / 2.5
    assert 0.8 * MAX_TOKENS < tokens <= MAX_TOKENS
    assert "about 1,000,000 dialogues" in sized(large).summary
    assert "% of the training data" in sized(large).summary


def test_steps_of_a_preset_that_trains_too_long_are_cut_to_what_does_not_memorise() -> None:
    values = sized(SMALL, "multi-turn-gpt2").values
    num_windows = SMALL.num_bytes / 2.5 / 128
    assert values["training.max_steps"] * values["training.batch_size"] <= MAX_EPOCHS * num_windows


def test_a_text_of_many_characters_gets_a_vocabulary_that_holds_them() -> None:
    assert sized(SMALL).values["tokenizer.vocab_size"] == 500
    chinese = replace(SMALL, num_characters=3000)
    assert sized(chinese).values["tokenizer.vocab_size"] >= 3000 + 256 + 95


def test_long_turns_are_split_where_one_may_exist_in_training_or_validation_data() -> None:
    long = replace(SMALL, longest_turn=5000)
    assert "dialogue.long_turns" not in sized(SMALL).values
    assert "dialogue.long_turns" not in sized(SMALL, validation=SMALL).values
    for sizing in (
        sized(long),
        sized(SMALL, validation=long),
        sized(replace(SMALL, is_exact=False)),
    ):
        assert sizing.values["dialogue.long_turns"] == "split"


def test_large_validation_data_is_limited_so_that_the_steps_take_most_of_the_time() -> None:
    values = sized(SMALL, validation=replace(SMALL, num_dialogues=10**6)).values
    share = values["evaluation.max_dialogues"] / (
        values["evaluation.every_steps"] * values["training.batch_size"]
    )
    assert share < 1.5
    few = replace(SMALL, num_dialogues=30)
    assert "evaluation.max_dialogues" not in sized(SMALL, validation=few).values


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_not_changed_by_its_sizing(name: str) -> None:
    before = build_config(PRESETS[name].values, name)
    sized(SMALL, name).apply(PRESETS[name])
    assert build_config(PRESETS[name].values, name) == before
    assert SCRATCH.reasons == {}


@pytest.mark.parametrize(
    ("num_bytes", "words"),
    [(1, "1 kB"), (23_000, "23 kB"), (4_800_000, "4.8 MB"), (435_000_000, "435 MB")],
)
def test_the_amount_of_text_is_written_with_a_unit(num_bytes: int, words: str) -> None:
    reasons = sized(replace(SMALL, num_bytes=num_bytes)).reasons
    assert reasons["tokenizer.vocab_size"] == f"Chosen for {words} of text."
