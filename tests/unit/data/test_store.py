"""Examples laid side by side come back as they were."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from convo_cli.data.store import ASSISTANT_TARGET, NO_TARGET, USER_TARGET, Example, TokenStore

EXAMPLE = st.lists(st.tuples(st.integers(0, 2**31 - 1), st.sampled_from([0, 1, 2])), min_size=1, max_size=6).map(
    lambda pairs: Example(np.array([i for i, _ in pairs], np.int32), np.array([t for _, t in pairs], np.uint8))
)


@given(dialogues=st.lists(st.lists(EXAMPLE, max_size=3), max_size=5))
def test_every_example_comes_back_in_order(dialogues):
    store = TokenStore.build(iter(dialogues))
    examples = [example for windows in dialogues for example in windows]
    assert (len(store), store.num_dialogues) == (len(examples), len(dialogues))
    for index, example in enumerate(examples):
        assert store[index].input_ids.tolist() == example.input_ids.tolist()
        assert store[index].targets.tolist() == example.targets.tolist()
    assert store.lengths.tolist() == [len(example.input_ids) for example in examples]
    assert store.num_tokens == sum(store.lengths)
    for kind in (NO_TARGET, ASSISTANT_TARGET, USER_TARGET):
        assert store.num_targets(kind) == sum((example.targets == kind).sum() for example in examples)


def test_the_arrays_are_as_small_as_they_can_be():
    store = TokenStore.build([[Example(np.array([1, 2], np.int32), np.array([0, 1], np.uint8))]])
    assert (store.input_ids.dtype, store.targets.dtype) == (np.int32, np.uint8)
    assert store[0].input_ids.base is not None, "an example is a view, not a copy"
