"""Windows against brute force: nothing cut, nothing twice, nothing lost, as much context as fits; and so in chat."""

from __future__ import annotations

from itertools import accumulate, combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convo_cli.data.problems import ProblemError
from convo_cli.errors import DataError
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.windows import Window, first_that_fits, plan_windows
from tests.families import FAMILIES, family_dialogues, family_tokenizer, native_encoder
from tests.strategies import dialogues

LENGTHS = st.lists(st.integers(1, 20), max_size=25)
NAMES = ["turns", "chatml", "convmodel", "cls-sep", *FAMILIES]


@given(lengths=LENGTHS, budget=st.integers(20, 60))
def test_every_turn_is_fresh_in_exactly_one_window_and_no_window_is_too_long(lengths, budget):
    windows = plan_windows(lengths, budget)
    fresh = [turn for window in windows for turn in range(window.fresh, window.stop)]
    assert fresh == list(range(len(lengths)))
    assert all(sum(lengths[window.first : window.stop]) <= budget for window in windows)
    assert all(window.first <= window.fresh < window.stop for window in windows)


@given(lengths=LENGTHS, budget=st.integers(20, 60))
def test_context_is_every_whole_turn_that_still_fits(lengths, budget):
    for window in plan_windows(lengths, budget):
        if window.first > 0:
            assert sum(lengths[window.first - 1 : window.stop]) > budget


@given(lengths=LENGTHS, budget=st.integers(20, 60))
def test_a_dialogue_that_fits_is_one_window(lengths, budget):
    if lengths and sum(lengths) <= budget:
        assert plan_windows(lengths, budget) == [Window(0, 0, len(lengths))]


@given(lengths=LENGTHS, budget=st.integers(0, 100))
def test_the_earliest_turn_that_fits_is_found(lengths, budget):
    expected = min((first for first in range(len(lengths) + 1) if sum(lengths[first:]) <= budget), default=len(lengths))
    assert first_that_fits(lengths, budget) == expected


@settings(max_examples=200)
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=9), budget=st.integers(6, 16))
def test_among_all_ways_to_cut_the_plan_has_the_fewest_windows_and_fills_the_earliest(lengths, budget):
    allowed = [
        cuts
        for count in range(len(lengths))
        for cuts in combinations(range(1, len(lengths)), count)
        if _is_allowed(lengths, budget, [0, *cuts, len(lengths)])
    ]
    plan = plan_windows(lengths, budget)
    cuts = tuple(window.fresh for window in plan[1:])
    assert cuts in allowed
    assert len(cuts) == min(map(len, allowed))
    assert cuts == max(other for other in allowed if len(other) == len(cuts))
    for window in plan:
        fits = [first for first in range(window.fresh + 1) if sum(lengths[first : window.stop]) <= budget]
        assert window.first == min(fits)


def _is_allowed(lengths, budget, bounds):
    """Whole turns; the first window is full at most, the others keep half for context unless a turn needs more."""
    sizes = [sum(lengths[start:stop]) for start, stop in pairwise(bounds)]
    counts = [stop - start for start, stop in pairwise(bounds)]
    later = zip(sizes[1:], counts[1:], strict=True)
    return sizes[0] <= budget and all(size <= (budget if count == 1 else budget // 2) for size, count in later)


def test_a_turn_longer_than_the_window_is_refused():
    with pytest.raises(ValueError, match="a turn of 30 tokens does not fit into 20"):
        plan_windows([5, 30, 5], 20)


# The whole way: dialogues through the encoder.


@pytest.fixture(scope="module")
def encoders(make_encoder, sample_dialogues):
    made = {name: make_encoder(name, max_length=4096) for name in NAMES if name not in FAMILIES}
    return made | {
        name: native_encoder(family_tokenizer(family, sample_dialogues)) for name, family in FAMILIES.items()
    }


def _cut(encoder, max_length):
    return DialogueEncoder(encoder.tokenizer, encoder.template, max_length=max_length)


def _draw(data, name):
    if name in FAMILIES:
        return data.draw(family_dialogues(FAMILIES[name], look_alikes=True))
    return data.draw(dialogues(system=name in ("turns", "chatml")))


def _windows(data, encoders, name):
    """A dialogue, it as one example, the encoder that cuts it and the windows; None where a turn does not fit."""
    dialogue = _draw(data, name)
    (whole,) = encoders[name].encode([dialogue])[0]
    longest = len(whole.input_ids)
    cut = _cut(encoders[name], data.draw(st.integers(max(8, longest // 3), max(8, longest))))
    try:
        return dialogue, whole, cut, cut.encode([dialogue])[0]
    except ProblemError as error:
        if error.problem.code != "turn-too-long":
            raise
        return None


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_windows_hold_every_token_and_every_target_exactly_once(encoders, name, data):
    if (case := _windows(data, encoders, name)) is None:
        return
    _, whole, cut, windows = case
    assert all(len(window.input_ids) <= cut.max_length for window in windows)
    assert windows[0].num_repeated == 0
    fresh = [slice(window.num_repeated, None) for window in windows]
    tokens = np.concatenate([window.input_ids[part] for window, part in zip(windows, fresh, strict=True)])
    targets = np.concatenate([window.targets[part] for window, part in zip(windows, fresh, strict=True)])
    assert tokens.tolist() == whole.input_ids.tolist()
    assert targets.tolist() == whole.targets.tolist()
    assert not any(window.targets[: window.num_repeated].any() for window in windows)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_window_repeats_the_head_and_what_came_right_before(encoders, name, data):
    if (case := _windows(data, encoders, name)) is None:
        return
    dialogue, whole, cut, windows = case
    ids = whole.input_ids.tolist()
    heads = set(range(len(ids)))
    for window, start in zip(windows[1:], _starts(windows)[1:], strict=True):
        repeated = window.input_ids[: window.num_repeated].tolist()
        heads &= {
            head
            for head in range(len(repeated) + 1)
            if repeated == ids[:head] + ids[head + start - len(repeated) : start]
        }
    assert heads, "one and the same head stands before every context"
    if dialogue.turns[0].role == "system":
        assert all(dialogue.turns[0].text in cut.decode(window.input_ids.tolist()) for window in windows)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_reply_in_a_window_follows_the_prompt_that_chat_would_make(encoders, name, data):
    """The same rule: with exactly as much room as the window had, chat drops the turns that the window dropped."""
    if (case := _windows(data, encoders, name)) is None:
        return
    dialogue, _, cut, windows = case
    turns, starts = dialogue.turns, _starts(windows)
    for index, turn in enumerate(turns):
        if turn.role != "assistant" or not any(earlier.role == "user" for earlier in turns[:index]):
            continue
        begin = len(encoders[name].prompt(turns[:index], max_new_tokens=1).ids)  # of the reply, in the whole example
        number = max(k for k, start in enumerate(starts) if start <= begin)
        window = windows[number]
        ids = window.input_ids[: window.num_repeated + begin - starts[number]].tolist()
        try:
            prompt = cut.prompt(turns[:index], max_new_tokens=cut.max_length - len(ids))
        except DataError:  # a window may have no room for context; chat does not answer without the last message
            assert turns[index - 1].text not in cut.decode(ids) or turns[index - 1].text in turns[0].text
        else:
            assert prompt.ids == ids


def _starts(windows):
    """Where in the whole example the tokens of each window begin that are new in it."""
    return [0, *accumulate(len(window.input_ids) - window.num_repeated for window in windows[:-1])]
