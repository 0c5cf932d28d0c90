"""Windows, compared with brute force: every target once, as much context as fits, as in chat."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import TemplateError

from convo_cli.data.dialogue import Dialogue, as_messages
from convo_cli.data.problems import LongTurn
from convo_cli.errors import DataError
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.templates.pieces import Rendering
from convo_cli.text.templates.template import TEMPLATES
from convo_cli.text.windows import Window, cut_turn, first_that_fits
from convo_cli.tokens.store import ASSISTANT_TARGET, USER_TARGET, Encoded
from tests.cases import num_examples
from tests.families import FAMILIES, family_dialogues, family_tokenizer, native_encoder
from tests.strategies import WITH_SYSTEM, dialogues
from tests.windows import plan

LENGTHS = st.lists(st.integers(1, 20), max_size=25)
NAMES = [*TEMPLATES, *FAMILIES]
FOLDING = ("llama2", "mistral", "mistral with [INST] as plain text", "gemma3")
"""Families that put the system text into the first user turn."""


@given(lengths=LENGTHS, budget=st.integers(20, 60))
def test_every_turn_is_fresh_in_exactly_one_window_and_no_window_is_too_long(lengths, budget):
    windows = plan(lengths, budget)
    fresh = [turn for window in windows for turn in range(window.fresh, window.stop)]
    assert fresh == list(range(len(lengths)))
    assert all(sum(lengths[window.first : window.stop]) <= budget for window in windows)
    assert all(window.first <= window.fresh < window.stop for window in windows)


@given(lengths=LENGTHS, budget=st.integers(20, 60))
def test_context_is_every_whole_turn_that_still_fits(lengths, budget):
    for window in plan(lengths, budget):
        if window.first > 0:
            assert sum(lengths[window.first - 1 : window.stop]) > budget


@given(lengths=LENGTHS, budget=st.integers(20, 60))
def test_a_dialogue_that_fits_is_one_window(lengths, budget):
    if lengths and sum(lengths) <= budget:
        assert plan(lengths, budget) == [Window(0, 0, len(lengths))]


@given(lengths=LENGTHS, budget=st.integers(0, 100))
def test_the_earliest_turn_that_fits_is_found(lengths, budget):
    expected = min(
        (first for first in range(len(lengths) + 1) if sum(lengths[first:]) <= budget),
        default=len(lengths),
    )
    assert first_that_fits(lengths, budget) == expected


@settings(max_examples=num_examples(200))
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=9), budget=st.integers(6, 16))
def test_among_all_ways_to_cut_the_plan_has_the_fewest_windows_and_fills_the_earliest(
    lengths, budget
):
    allowed = [
        cuts
        for count in range(len(lengths))
        for cuts in combinations(range(1, len(lengths)), count)
        if _is_allowed(lengths, budget, [0, *cuts, len(lengths)])
    ]
    windows = plan(lengths, budget)
    cuts = tuple(window.fresh for window in windows[1:])
    assert cuts in allowed
    assert len(cuts) == min(map(len, allowed))
    assert cuts == max(other for other in allowed if len(other) == len(cuts))
    for window in windows:
        fits = [
            first
            for first in range(window.fresh + 1)
            if sum(lengths[first : window.stop]) <= budget
        ]
        assert window.first == min(fits)


def _is_allowed(lengths, budget, bounds):
    """Whole turns; later windows keep half for context, unless a turn needs more."""
    sizes = [sum(lengths[start:stop]) for start, stop in pairwise(bounds)]
    counts = [stop - start for start, stop in pairwise(bounds)]
    later = zip(sizes[1:], counts[1:], strict=True)
    return sizes[0] <= budget and all(
        size <= (budget if count == 1 else budget // 2) for size, count in later
    )


@given(
    begin=st.integers(0, 60), length=st.integers(1, 100), budget=st.integers(2, 40), data=st.data()
)
def test_the_parts_of_a_turn_are_fresh_once_and_repeat_what_comes_right_before(
    begin, length, budget, data
):
    context = data.draw(st.integers(1, budget - 1))
    parts = cut_turn(begin, begin + length, budget, context)
    assert [token for part in parts for token in range(part.fresh, part.stop)] == list(
        range(begin, begin + length)
    )
    assert all(part.stop - part.start <= budget for part in parts)
    if begin and length < budget:
        assert [(part.start, part.stop) for part in parts] == [
            (max(0, begin + length - budget), begin + length)
        ]
    else:
        assert all(part.start == max(0, part.fresh - context) for part in parts)
        assert all(part.stop - part.start == budget for part in parts[:-1]), (
            "every part but the last is full"
        )


# The whole way: dialogues through the encoder.


@pytest.fixture(scope="module")
def encoders(make_encoder, sample_dialogues):
    made = {name: make_encoder(name, max_length=4096) for name in NAMES if name not in FAMILIES}
    made |= {
        name: native_encoder(family_tokenizer(family, sample_dialogues))
        for name, family in FAMILIES.items()
    }
    for encoder in made.values():
        encoder.tokenizer.chat_template = encoder.template.chat_template
    return made


def _with(encoder, max_length):
    return DialogueEncoder(encoder.tokenizer, encoder.template, max_length=max_length)


def _draw(data, name, *, look_alikes=True):
    if name in FAMILIES:
        return data.draw(family_dialogues(FAMILIES[name], look_alikes=look_alikes))
    return data.draw(dialogues(look_alikes=look_alikes, system=name in WITH_SYSTEM))


def _whole(encoder, dialogue):
    (whole,) = encoder.encode([dialogue], "all")[0]
    return whole


def _cut(data, encoders, name, *, look_alikes=True):
    """A dialogue, the same as one example, its encoder and windows; None if a turn is too long."""
    dialogue = _draw(data, name, look_alikes=look_alikes)
    whole = _whole(encoders[name], dialogue)
    longest = len(whole.input_ids)
    cut = _with(encoders[name], data.draw(st.integers(max(8, longest // 3), max(8, longest))))
    (found,) = cut.encode_all([dialogue], "all")
    if isinstance(found, LongTurn):
        return None
    assert isinstance(found, Encoded)
    assert (found.num_tokens, found.is_split) == (longest, False)
    return dialogue, whole, cut, found.examples


def _theirs(encoder, turns, *, prompt=False):
    return encoder.tokenizer.apply_chat_template(
        as_messages(turns), return_dict=False, add_generation_prompt=prompt
    )


def _kept(encoder, turns, first, stop, *, prompt=False):
    """Plain transformers' rendering of the system turn and these turns; None if it refuses them."""
    num_system = turns[0].role == "system"
    chosen = [*turns[:num_system], *turns[num_system + first : num_system + stop]]
    try:
        return _theirs(encoder, chosen, prompt=prompt)
    except TemplateError:
        return None


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=num_examples(15), deadline=None)
@given(data=st.data())
def test_a_window_is_what_transformers_renders_of_the_turns_it_holds(encoders, name, data):
    """Up to the end of its last turn; and each turn is fresh in exactly one window."""
    if (case := _cut(data, encoders, name, look_alikes=False)) is None:
        return
    dialogue, whole, cut, windows = case
    turns = dialogue.turns
    num_turns = len(turns) - (turns[0].role == "system")
    reached = {0}  # which turn the next window may begin with: equal turns look alike
    for window in windows:
        ids = window.input_ids.tolist()
        assert len(ids) <= cut.max_length
        reached = {
            stop
            for fresh in reached
            for stop in range(fresh + 1, num_turns + 1)
            for first in range(fresh + 1)
            if (theirs := _kept(cut, turns, first, stop)) is not None
            and theirs[: len(ids)] == ids
            and len(theirs) - len(ids) <= (0 if stop == num_turns else 1)
        }
        assert reached, "no turns are rendered as this window"
    assert num_turns in reached
    _assert_equal_targets(windows, whole, dialogue, name)


def _assert_equal_targets(examples, whole, dialogue, name):
    """Every target once, in order, except for the token right after a folded system text."""
    is_folded = name in FOLDING and dialogue.turns[0].role == "system"
    for kind in (ASSISTANT_TARGET,) if is_folded else (ASSISTANT_TARGET, USER_TARGET):
        trained = [example.input_ids[example.targets == kind].tolist() for example in examples]
        assert list(chain.from_iterable(trained)) == whole.input_ids[whole.targets == kind].tolist()


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=num_examples(15), deadline=None)
@given(data=st.data())
def test_a_trimmed_prompt_is_what_transformers_renders_of_the_turns_that_are_left(
    encoders, name, data
):
    turns = _draw(data, name, look_alikes=False).turns
    questions = [index for index, turn in enumerate(turns) if turn.role == "user"]
    if not questions:
        return
    turns = turns[: questions[-1] + 1]
    whole = encoders[name].prompt(turns, max_new_tokens=1)
    num_system = turns[0].role == "system"
    num_turns = len(turns) - num_system
    all_kept = [
        _kept(encoders[name], turns, first, num_turns, prompt=True) for first in range(num_turns)
    ]
    for room in {data.draw(st.integers(1, len(whole.ids))), len(whole.ids) - 1}:
        cut = _with(encoders[name], room + 1)
        fitting = [
            first for first, ids in enumerate(all_kept) if ids is not None and len(ids) <= room
        ]
        if name in FOLDING and num_system:
            fitting = [first for first in fitting if turns[first + 1].role == "user"]
        fitting.sort(key=lambda first: not _may_begin(turns, first))
        if not fitting:
            with pytest.raises(DataError, match="the last message has"):
                cut.prompt(turns, max_new_tokens=1)
            continue
        prompt = cut.prompt(turns, max_new_tokens=1)
        assert (prompt.num_dropped, prompt.ids) == (fitting[0], all_kept[fitting[0]])


def _may_begin(turns, first):
    """Return whether a prompt may begin with this turn: a user's, or one like the first."""
    num_system = turns[0].role == "system"
    return turns[num_system + first].role in ("user", turns[num_system].role)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "smollm3"])
@settings(max_examples=num_examples(15), deadline=None)
@given(data=st.data())
def test_a_reply_in_a_window_follows_the_prompt_that_chat_would_make(encoders, name, data):
    """With as much room as the window had, chat drops the turns that the window dropped.

    But a prompt does not begin with a reply if the dialogue does not.
    (smollm3 trains on the header too, so its targets do not begin where the prompt ends.)
    """
    if (case := _cut(data, encoders, name)) is None:
        return
    dialogue, _, cut, _ = case
    for index, turn in enumerate(dialogue.turns):
        if turn.role != "assistant" or not any(
            earlier.role == "user" for earlier in dialogue.turns[:index]
        ):
            continue
        only = tuple(
            replace(each, is_trained=number == index) for number, each in enumerate(dialogue.turns)
        )
        (window,) = [one for one in cut.encode([Dialogue(only)])[0] if one.targets.any()]
        ids = window.input_ids[: int(window.targets.argmax())].tolist()
        try:
            prompt = cut.prompt(dialogue.turns[:index], max_new_tokens=cut.max_length - len(ids))
        except DataError:
            # A window may have no room for context; chat never drops the last message.
            assert (
                dialogue.turns[index - 1].text not in cut.decode(ids)
                or "system" in dialogue.turns[0].role
            )
        else:
            assert prompt.ids == ids or len(prompt.ids) < len(ids)
            num_system = dialogue.turns[0].role == "system"
            user_turns = [turn.role for turn in dialogue.turns[num_system:index]].count("user")
            assert prompt.ids == ids or user_turns < index - num_system


# Turns that fit no window


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=num_examples(15), deadline=None)
@given(data=st.data())
def test_split_trains_every_target_once_in_windows_of_any_length(encoders, name, data):
    dialogue = _draw(data, name)
    whole = _whole(encoders[name], dialogue)
    head = _head(encoders[name], dialogue)
    fewest = head + (2 if not (name in FOLDING and dialogue.turns[0].role == "system") else 16)
    cut = _with(encoders[name], data.draw(st.integers(fewest, max(fewest, len(whole.input_ids)))))
    (split,) = cut.encode_all([dialogue], "all", "split")
    assert isinstance(split, Encoded), split
    assert split.num_tokens == len(whole.input_ids)
    assert all(len(example.input_ids) <= cut.max_length for example in split.examples)
    assert not any(example.targets[: example.num_repeated].any() for example in split.examples)
    assert not any(example.targets[0] for example in split.examples)
    _assert_equal_targets(split.examples, whole, dialogue, name)
    (refused,) = cut.encode_all([dialogue], "all", "refuse")
    assert isinstance(refused, LongTurn) == split.is_split
    if not split.is_split:
        assert [one.input_ids.tolist() for one in refused.examples] == [
            one.input_ids.tolist() for one in split.examples
        ]


@pytest.mark.parametrize("name", [*TEMPLATES, "llama3", "qwen", "gemma"])
@settings(max_examples=num_examples(25), deadline=None)
@given(data=st.data())
def test_a_part_of_a_long_turn_repeats_the_head_and_the_tokens_right_before_it(
    encoders, name, data
):
    dialogue = _draw(data, name)
    whole = _whole(encoders[name], dialogue).input_ids.tolist()
    head = _head(encoders[name], dialogue)
    cut = _with(encoders[name], data.draw(st.integers(head + 2, max(head + 2, len(whole)))))
    (split,) = cut.encode_all([dialogue], "all", "split")
    done = 0
    for example in split.examples:
        ids, before = example.input_ids.tolist(), example.num_repeated
        stop = done + len(ids) - before
        assert ids[before:] == whole[done:stop], "every token is new in one window"
        if done:
            assert ids[:head] == whole[:head]
            assert ids[head:before] == whole[done - (before - head) : done]
        done = stop
    assert done == len(whole)


def _head(encoder, dialogue):
    """Return the number of tokens before the first turn that is not the system turn."""
    num_system = dialogue.turns[0].role == "system"
    pieces = encoder.template.render(dialogue.turns)
    (ids,) = encoder._encode_pieces([pieces], {})
    return Rendering(pieces, ids).bounds(num_system)[0]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=num_examples(15), deadline=None)
@given(data=st.data())
def test_the_max_length_that_a_refusal_names_is_the_smallest_that_fits(encoders, name, data):
    dialogue = _draw(data, name)
    cut = _with(encoders[name], data.draw(st.integers(1, 60)))
    (found,) = cut.encode_all([dialogue], "all")
    if isinstance(found, Encoded):
        return
    assert isinstance(found, LongTurn)
    assert f"(it needs {found.needed})" in found.message
    (fits,) = _with(encoders[name], found.needed).encode_all([dialogue], "all")
    assert isinstance(fits, Encoded), fits
    for shorter in {found.needed - 1, (found.needed + cut.max_length) // 2} - {found.needed}:
        (too_long,) = _with(encoders[name], shorter).encode_all([dialogue], "all")
        assert isinstance(too_long, LongTurn)
