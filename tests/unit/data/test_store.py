"""Examples laid side by side come back as they were, from memory and from files."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convo_cli.data.dialogue import Dialogue, Turn
from convo_cli.data.fingerprint import fingerprint
from convo_cli.data.store import ASSISTANT_TARGET, NO_TARGET, USER_TARGET, Example, TokenStore, write

EXAMPLE = st.lists(st.tuples(st.integers(0, 2**31 - 1), st.sampled_from([0, 1, 2])), min_size=1, max_size=6).map(
    lambda pairs: Example(np.array([i for i, _ in pairs], np.int32), np.array([t for _, t in pairs], np.uint8))
)
FILES = ("a.jsonl", "b.jsonl")


@st.composite
def encoded(draw):
    """Dialogues of two files, each with up to three windows."""
    said = st.text(st.characters(exclude_categories=("Cs",)), max_size=5)
    return [
        (Dialogue((Turn("user", draw(said)),), line, draw(st.sampled_from(FILES))), draw(st.lists(EXAMPLE, max_size=3)))
        for line in draw(st.lists(st.integers(1, 2**40), max_size=5))
    ]


@given(parts=st.lists(encoded(), max_size=3))
def test_every_example_with_a_target_comes_back_in_order_and_knows_its_line(parts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    together = [pair for part in parts for pair in part]
    examples = [(one, dialogue) for dialogue, windows in together for one in windows if one.targets.any()]
    write((TokenStore.build(part, FILES) for part in parts), folder)
    stores = [TokenStore.build(together, FILES)]
    if examples:  # an empty file cannot be mapped; data without one example is refused before
        stores.append(TokenStore.open(folder))
    for store in stores:
        assert (len(store), store.num_dialogues) == (len(examples), len(together))
        for index, (example, dialogue) in enumerate(examples):
            assert store[index].input_ids.tolist() == example.input_ids.tolist()
            assert store[index].targets.tolist() == example.targets.tolist()
            assert store.where(store.dialogue_of[index], FILES) == dialogue.where
        assert store.lengths.tolist() == [len(example.input_ids) for example, _ in examples]
        assert store.num_tokens == sum(store.lengths)
        assert store.dialogues["fingerprint"].tolist() == [fingerprint(dialogue.turns) for dialogue, _ in together]
        for kind in (ASSISTANT_TARGET, USER_TARGET):
            assert store.num_targets(kind) == sum((example.targets == kind).sum() for example, _ in examples)


def test_a_dialogue_is_as_long_as_its_windows_without_what_they_repeat():
    targets = np.array([NO_TARGET, ASSISTANT_TARGET, NO_TARGET], np.uint8)
    ids = np.arange(3, dtype=np.int32)
    windows = [Example(ids, targets), Example(ids, targets * 0, 2), Example(ids, targets, 1)]
    store = TokenStore.build([(Dialogue((Turn("user", "a"),)), windows)])
    assert (len(store), store.dialogues["num_tokens"].tolist()) == (2, [3 + 1 + 2])


def test_the_arrays_are_as_small_as_they_can_be_and_files_are_mapped(tmp_path):
    example = Example(np.array([1, 2], np.int32), np.array([0, 1], np.uint8))
    write([TokenStore.build([(Dialogue((Turn("user", "a"),)), [example])])], tmp_path)
    store = TokenStore.open(tmp_path)
    assert (store.input_ids.dtype, store.targets.dtype) == (np.int32, np.uint8)
    assert isinstance(store[0].input_ids.base, np.memmap), "an example is a view of the file, not a copy"
    with pytest.raises(ValueError, match="read-only"):
        store.input_ids[0] = 5
