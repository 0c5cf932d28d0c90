"""Stop strings end a reply at the same place however its text is cut into pieces."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convo_cli.serve.stop_strings import StopStrings

words = st.text(alphabet="ab", min_size=1, max_size=6)


def by_find(text: str, stops: list[str]) -> str:
    """The text before the stop string that is complete first."""
    ends = [(text.find(stop) + len(stop), -len(stop)) for stop in stops if stop in text]
    if not ends:
        return text
    end, length = min(ends)
    return text[: end + length]


@given(st.lists(st.text(alphabet="abc", max_size=5), max_size=12), st.lists(words, max_size=4))
def test_the_text_ends_at_the_first_complete_stop_string(pieces, stops):
    text = "".join(pieces)
    matcher = StopStrings(stops)
    shown = [matcher.push(piece) for piece in pieces]
    assert matcher.is_matched == any(stop in text for stop in stops)
    assert "".join(shown) + matcher.finish() == by_find(text, stops)


@given(st.lists(st.text(alphabet="abc", max_size=5), max_size=12), st.lists(words, max_size=4))
def test_only_a_possible_beginning_of_a_stop_string_is_held_back(pieces, stops):
    matcher, shown, text = StopStrings(stops), "", ""
    for piece in pieces:
        text += piece
        shown += matcher.push(piece)
        if matcher.is_matched:
            return
        held = text[len(shown) :]
        begins = [stop[:size] for stop in stops for size in range(len(stop)) if size]
        assert held == max((one for one in begins if text.endswith(one)), key=len, default="")


def test_an_empty_stop_string_is_refused():
    with pytest.raises(ValueError, match="empty"):
        StopStrings(["a", ""])


def test_long_stop_strings_take_linear_time():
    """Four strings of 1,000 characters that almost match everywhere."""
    stops = ["a" * 999 + end for end in "bcde"]
    matcher = StopStrings(stops)
    started = time.process_time()
    shown = "".join(matcher.push("a") for _ in range(100_000))
    assert time.process_time() - started < 3.0  # 0.2 s; comparing each place would take minutes
    assert len(shown) == 100_000 - 999
