"""`data.validation_split`: which dialogues are held back depends on their openings alone."""

from __future__ import annotations

import gzip
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convo_cli.data.dialogue import Turn
from convo_cli.data.held_out.validation_split import (
    ValidationSplit,
    find_split,
    hash_opening,
    is_by_chance,
)
from convo_cli.errors import DataError
from convo_cli.prepare.cache import Cache
from convo_cli.prepare.inputs import Inputs
from convo_cli.runs.provenance.data_files import read_data_files
from tests.cases import num_examples

HASHES = st.integers(0, 2**64 - 1)
SHARES = st.floats(0, 1, exclude_min=True, exclude_max=True)


def side(split, hashes):
    return [split.is_held_back(number) for number in hashes]


# The opening


TURNS = st.text("aB éß\u0130\u212b\uac00İ?!", min_size=1).map(str.strip).filter(bool)
CHANGES = st.sampled_from(
    [str.lower, str.casefold, lambda text: text.replace(" ", "\u3000\t"), lambda text: text]
)


@settings(max_examples=num_examples(60))
@given(st.tuples(TURNS, TURNS), CHANGES, st.booleans(), st.lists(TURNS, max_size=2))
def test_dialogues_that_begin_alike_have_one_hash(opening, change, has_system, rest):
    system = [Turn("system", "Be brief.")] if has_system else []
    other = [Turn("user", change(text)) for text in opening] + [Turn("user", one) for one in rest]
    assert hash_opening([*system, *other]) == hash_opening([Turn("user", one) for one in opening])


def test_other_openings_have_other_hashes():
    turns = [Turn("user", "Hello"), Turn("assistant", "Hi")]
    others = [
        [Turn("user", "Hello Hi")],
        [Turn("user", "Hello"), Turn("assistant", "Hey")],
        [Turn("user", "Hallo"), Turn("assistant", "Hi")],
        turns[:1],
    ]
    hashes = [hash_opening(one) for one in (turns, *others)]
    assert len(set(hashes)) == 5


def test_a_shared_system_turn_does_not_bring_dialogues_together():
    system = Turn("system", "You are a helpful assistant.")
    hashes = {hash_opening([system, Turn("user", f"Question {k}")]) for k in range(50)}
    assert len(hashes) == 50


def test_the_hash_is_the_same_in_every_version():
    """Another hash would move validation dialogues of old runs into training."""
    assert hash_opening([Turn("user", "Hello"), Turn("assistant", "Hi")]) == 13051541730530140863


# The rule


@given(st.lists(HASHES, min_size=2, max_size=20, unique=True), SHARES)
def test_both_sides_have_a_dialogue(hashes, share):
    held_back = side(find_split(hashes, share), hashes)
    assert {True, False} <= set(held_back)


@given(st.lists(HASHES, min_size=2, max_size=20, unique=True), st.lists(HASHES), SHARES)
def test_more_data_moves_a_dialogue_only_if_a_side_was_empty_by_the_share(hashes, more, share):
    by_share = side(ValidationSplit(round(share * 2**64)), hashes)
    before, after = (side(find_split(all_, share), hashes) for all_ in (hashes, [*more, *hashes]))
    if len(set(by_share)) == 2:
        assert before == after == by_share


@given(st.lists(HASHES, min_size=2, max_size=20, unique=True), SHARES, st.randoms())
def test_the_order_of_the_data_does_not_matter(hashes, share, rng):
    shuffled = rng.sample(hashes, len(hashes))
    assert find_split(hashes, share) == find_split(shuffled, share)


@given(st.lists(HASHES, min_size=2, max_size=20, unique=True), SHARES, SHARES)
def test_a_larger_share_keeps_every_validation_dialogue(hashes, one, other):
    low, high = sorted([one, other])
    small, large = (side(find_split(hashes, share), hashes) for share in (low, high))
    assert all(after or not before for before, after in zip(small, large, strict=True))


@pytest.mark.parametrize("share", [0.001, 0.05, 0.3, 0.9])
def test_the_share_is_that_of_the_config_within_chance(share):
    rng = random.Random(7)
    words = ["what", "do", "you", "think", "about", "the", "new", "train", "tomorrow"]
    hashes = [
        hash_opening([Turn("user", " ".join(rng.choices(words, k=9))), Turn("assistant", str(k))])
        for k in range(2_000)
    ]
    num_held_back = sum(side(find_split(hashes, share), hashes))
    assert is_by_chance(num_held_back, len(hashes), share)
    assert not is_by_chance(3 * num_held_back + 50, len(hashes), share)


@pytest.mark.parametrize(("count", "words"), [(1, "only one dialogue"), (7, "all 7 dialogues")])
def test_data_with_one_opening_cannot_be_split(count, words):
    with pytest.raises(DataError, match=words):
        find_split([5] * count, 0.5)


def test_the_data_is_read_until_both_sides_have_a_dialogue():
    numbers = iter([2**63, 0, 1, 2])
    find_split(numbers, 0.25)
    assert list(numbers) == [1, 2]


# The two sides of files


def lines_of(number):
    """Lines with near-duplicates, system turns and excluded dialogues."""
    rng = random.Random(number)
    for k in range(rng.randrange(80)):
        topic = rng.randrange(30)
        turns = [f"Tell me about topic {topic}.", f"Topic {topic} it is.", f"More, {k}", "Sure."]
        messages = [
            {"role": role, "content": text}
            for role, text in zip(["user", "assistant"] * 2, turns, strict=True)
        ]
        if rng.random() < 0.3:
            messages.insert(0, {"role": "system", "content": "Be brief."})
        yield json.dumps({"messages": messages, "train": rng.random() > 0.2})


@pytest.mark.parametrize("seed", range(5))
def test_every_dialogue_is_on_one_side_and_all_with_its_opening(
    tiny_config, tmp_path, ignore, seed
):
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz", tmp_path / "c.jsonl"]
    texts = ["\n".join(lines_of(seed * 10 + k)) + "\n" for k in range(3)]
    for path, text in zip(paths, texts, strict=True):
        packed = gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode()
        path.write_bytes(packed)
    config = tiny_config(
        data={"train": list(map(str, paths)), "validation": [], "validation_split": 0.2}
    )
    inputs = Inputs(config, read_data_files(config.data), Cache(tmp_path, ignore), ignore)
    sides = {}
    for name in ("train", "validation"):
        with inputs.read(name) as dialogues:
            sides[name] = list(dialogues)
    trained, held_back = (
        {(one.file, one.line) for one in sides[name]} for name in ("train", "validation")
    )
    kept = {
        (str(path), number)
        for path, text in zip(paths, texts, strict=True)
        for number, line in enumerate(text.splitlines(), 1)
        if line and json.loads(line)["train"]
    }
    assert not trained & held_back
    assert trained | held_back == kept
    openings = [
        {hash_opening(one.turns) for one in sides[name]} for name in ("train", "validation")
    ]
    assert not openings[0] & openings[1]
    assert all(openings)
