"""Sample of the training text: everything while it fits, else lines of all files alike."""

from __future__ import annotations

import tempfile
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convo_cli.text.tokenizers import text_sample
from convo_cli.text.tokenizers.text_sample import TextSample


def sample_of(texts, most):
    with tempfile.TemporaryFile() as spool:
        sample = TextSample(spool, texts, most)
        return list(sample), sample.num_sampled, sample.num_characters


TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=30)


@given(TEXTS)
def test_text_within_the_limit_is_kept_whole_and_in_order(texts):
    lines = [line for text in texts for line in text.splitlines()]
    size = sum(map(len, lines))
    assert sample_of(texts, size) == (lines, size, size)


@given(TEXTS, st.integers(0, 300))
def test_a_sample_has_lines_of_the_text_in_order_and_is_no_larger_than_its_limit(texts, most):
    lines, num_sampled, num_characters = sample_of(texts, most)
    rest = iter(line for text in texts for line in text.splitlines())
    assert all(line in rest for line in lines)
    assert sum(map(len, lines)) == num_sampled <= min(most, num_characters)


def test_a_sample_takes_the_same_share_of_every_file_and_fills_the_limit():
    """Files follow each other, by language for example; the first of them filled the limit."""
    files = {"a": 5000, "b": 20_000, "c": 2500}
    texts = [f"{name * 10} {number}" for name, size in files.items() for number in range(size)]
    lines, num_sampled, num_characters = sample_of(texts, 60_000)
    assert 59_000 < num_sampled <= 60_000 < num_characters / 5
    for name, size in files.items():
        share = sum(line.startswith(name) for line in lines) / len(lines)
        assert share == pytest.approx(size / sum(files.values()), rel=0.1)


def test_a_line_is_as_frequent_in_the_sample_as_in_the_text():
    """A draw by content would take all copies of a line or none."""
    texts = ["yes" if number % 4 else f"no {number}" for number in range(20_000)]
    lines, *_ = sample_of(texts, 10_000)
    assert lines.count("yes") / len(lines) == pytest.approx(0.75, rel=0.1)


def test_the_sample_is_the_same_on_every_machine_and_in_every_version():
    """Another sample needs another number in the key of the cache (prepare/prepared_text)."""
    lines, *_ = sample_of([f"line {number}" for number in range(100)], 100)
    numbers = [2, 3, 11, 13, 20, 21, 32, 48, 53, 59, 62, 69, 88, 92]
    assert lines == [f"line {number}" for number in numbers]


def test_a_sample_needs_a_bounded_part_of_the_disk():
    with tempfile.TemporaryFile() as spool:
        sample = TextSample(spool, (f"line {number:09}" for number in range(50_000)), 7000)
        assert sample.num_characters == 700_000
        assert spool.tell() < 8 * 7000 * 1.5  # 1 + log(100) is 5.6; a level takes six bytes


@given(st.lists(st.sampled_from(["word", " ", "a" * 400, "語" * 700]), max_size=20))
def test_a_long_line_is_cut_before_spaces_and_no_text_is_lost(words):
    line = "".join(words)
    parts = list(text_sample._parts(line))
    assert "".join(parts) == line
    assert all(len(part) <= 1000 for part in parts)
    for before, after in pairwise(parts):
        assert after.startswith(" ") or len(before) == 1000
