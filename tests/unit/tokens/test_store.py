"""A token store returns its examples unchanged, from memory and from files."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convo_cli.data.dialogue import Dialogue, Turn
from convo_cli.data.fingerprint import fingerprint
from convo_cli.errors import CheckpointError
from convo_cli.tokens.store import (
    ASSISTANT_TARGET,
    LEFT_OUT,
    NO_TARGET,
    USER_TARGET,
    Encoded,
    Example,
    TokenStore,
)
from convo_cli.tokens.store_writer import write

EXAMPLE = st.lists(
    st.tuples(st.integers(0, 2**31 - 1), st.sampled_from([0, 1, 2])), min_size=1, max_size=6
).map(
    lambda pairs: Example(
        np.array([i for i, _ in pairs], np.int32), np.array([t for _, t in pairs], np.uint8)
    )
)
FILES = ("a.jsonl", "b.jsonl")


@st.composite
def encoded(draw):
    """Dialogues of two files, each with up to three windows, some left out."""
    said = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
    windows = st.builds(
        Encoded, st.lists(EXAMPLE, max_size=3), st.integers(1, 2**40), st.booleans()
    )
    return [
        (
            Dialogue((Turn("user", draw(said)),), line, draw(st.sampled_from(FILES))),
            draw(st.one_of(st.just(LEFT_OUT), windows)),
        )
        for line in draw(st.lists(st.integers(1, 2**40), max_size=5))
    ]


@given(parts=st.lists(encoded(), max_size=3))
def test_every_example_with_a_target_comes_back_in_order_and_knows_its_line(
    parts, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("store")
    together = [pair for part in parts for pair in part]
    examples = [
        (example, dialogue)
        for dialogue, one in together
        for example in one.examples
        if example.targets.any()
    ]
    write((TokenStore.build(part, FILES) for part in parts), folder)
    for store in (TokenStore.build(together, FILES), TokenStore.open(folder)):
        assert (len(store), len(store.dialogues)) == (len(examples), len(together))
        assert store.num_dialogues == sum(one is not LEFT_OUT for _, one in together)
        for index, (example, dialogue) in enumerate(examples):
            assert store[index].input_ids.tolist() == example.input_ids.tolist()
            assert store[index].targets.tolist() == example.targets.tolist()
            assert store.where(store.dialogue_of[index], FILES) == dialogue.where
        assert store.lengths.tolist() == [len(example.input_ids) for example, _ in examples]
        assert store.num_tokens == sum(store.lengths)
        assert store.dialogues["fingerprint"].tolist() == [
            fingerprint(dialogue.turns) for dialogue, _ in together
        ]
        assert store.dialogues["num_tokens"].tolist() == [one.num_tokens for _, one in together]
        assert store.dialogues["is_split"].tolist() == [one.is_split for _, one in together]
        for kind in (ASSISTANT_TARGET, USER_TARGET):
            assert store.num_targets(kind) == sum(
                (example.targets == kind).sum() for example, _ in examples
            )


def test_a_window_without_a_target_is_left_out():
    targets = np.array([NO_TARGET, ASSISTANT_TARGET, NO_TARGET], np.uint8)
    ids = np.arange(3, dtype=np.int32)
    windows = [Example(ids, targets), Example(ids, targets * 0, 2), Example(ids, targets, 1)]
    store = TokenStore.build([(Dialogue((Turn("user", "a"),)), Encoded(windows, 6))])
    assert (len(store), store.dialogues["num_tokens"].tolist()) == (2, [6])


@pytest.fixture
def opened(tmp_path):
    """A store in files, of 100 examples of ten tokens."""
    example = Example(np.arange(10, dtype=np.int32), np.arange(10, dtype=np.uint8) % 2)
    write(
        [TokenStore.build([(Dialogue((Turn("user", "a"),)), Encoded([example] * 100, 1000))])],
        tmp_path,
    )
    return TokenStore.open(tmp_path)


def test_the_arrays_have_small_types_and_are_read_only(opened):
    example = opened[0]
    assert (example.input_ids.dtype, example.targets.dtype) == (np.int32, np.uint8)
    with pytest.raises(ValueError, match="read-only"):
        example.input_ids[0] = 5


def test_a_store_in_files_has_only_eight_bytes_per_example_in_memory(opened):
    in_memory = [name for name, column in vars(opened).items() if isinstance(column, np.ndarray)]
    assert in_memory == ["lengths", "dialogue_of"]
    assert sum(getattr(opened, name).itemsize for name in in_memory) == 8


@pytest.mark.parametrize("name", ["input_ids", "targets"])
@pytest.mark.parametrize("size", [0, 1, 399])
def test_a_file_that_is_truncated_while_it_is_open_is_an_error_that_names_it(
    opened, tmp_path, name, size
):
    assert opened[99].input_ids.tolist() == list(range(10))
    before = (tmp_path / name).stat().st_size
    os.truncate(tmp_path / name, size)
    for read in (lambda: opened[99], lambda: opened.num_targets(1) + len(opened.input_ids[:])):
        with pytest.raises(
            CheckpointError,
            match=rf"/{name}: the file changed .*\({before:,} bytes before, now {size}\)",
        ) as caught:
            read()
    assert "convo resume RUN_DIR" in caught.value.hint


def test_a_file_that_changes_while_it_is_open_is_an_error_even_if_its_size_is_the_same(
    opened, tmp_path
):
    with (tmp_path / "input_ids").open("r+b") as file:
        file.write(b"other")
    # Two writes within a tick of the clock would have the same time.
    os.utime(tmp_path / "input_ids", ns=(0, 12345))
    with pytest.raises(CheckpointError, match="/input_ids: the file changed"):
        [opened[index] for index in range(32)]


def test_a_folder_that_is_removed_while_it_is_open_can_still_be_read(opened, tmp_path):
    for path in tmp_path.iterdir():
        path.unlink()
    assert opened[99].input_ids.tolist() == list(range(10))


def test_a_store_that_is_no_longer_used_closes_its_files(tmp_path):
    write([], tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        TokenStore.open(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before
