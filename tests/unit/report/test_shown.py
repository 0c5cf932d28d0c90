"""Foreign text is bounded and has no unseen characters; numbers are readable."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convo_cli.report.shown import device_of, duration, moment, number, short_number, shown
from convo_cli.unseen import has_unseen

ANY = st.text(st.characters(codec=None, categories=None))


@given(ANY, st.integers(0, 300))
def test_any_text_becomes_harmless_and_bounded(text, limit):
    result = shown(text, limit)
    assert not has_unseen(result)
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", result)
    assert len(result) <= 2 * limit + 40
    result.encode()


@given(st.text("abc é한글😀\n", max_size=50))
def test_ordinary_text_stays_as_it_is(text):
    assert shown(text, 50) == text


def test_a_cut_text_says_how_much_is_missing():
    assert shown("a" * 1_250, 50) == "a" * 50 + "… (1,200 more characters)"


def test_marks_that_would_cover_other_lines_are_few():
    assert len(shown("e" + "\u0301" * 500, 600)) < 10
    assert shown("e\u0301\u0323", 10) == "e\u0301\u0323"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (float("nan"), "–"), (float("inf"), "∞"), (0, "0"), (4.50044, "4.500"),
     (90.0573, "90.06"), (12_345_678, "12,345,678"), (5.0, "5.000"),
     (0.0, "0"), (0.00356621, "0.003566"), (2.2e-7, "2.2e-7"),
     (1e300, "1e300"), (-1.5, "-1.500")],
)  # fmt: skip
def test_a_number(value, text):
    assert number(value) == text


@given(st.floats())
def test_every_float_has_a_short_text(value):
    assert 0 < len(number(value)) < 30


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1500, "1.5k"), (2e6, "2M"), (3e-4, "3e-4"), (0.5, "0.5"), (1e9, "1B")],
)
def test_a_number_of_an_axis(value, text):
    assert short_number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "0.2 s"), (45, "45 s"), (723, "12 min 3 s"), (7_500, "2 h 5 min"), (86_400, "1 d")],
)
def test_a_duration(seconds, text):
    assert duration(seconds) == text


def test_a_time_of_the_log():
    assert moment("2026-11-29T15:25:46.606+00:00") == "2026-11-29 15:25 UTC"
    assert [moment(other) for other in ("", None, "now", "0001-01-01T00:00:00+14:00")] == [""] * 4


def test_a_device_names_the_processes_of_a_run():
    assert device_of({"device": "cuda:0", "num_processes": 4}) == "cuda, 4 processes"
    assert device_of({"device": "cuda:0", "num_processes": 1}) == "cuda:0"
    assert device_of({"device": "cpu"}) == "cpu"
