"""Word wrap by columns: no line is too wide, nothing is lost, and the cuts do not matter."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convo_cli.cli.console import PrintableStream, printable
from convo_cli.cli.views.chatting.wrapping import WordWrap, clusters, columns
from tests.hostile_texts import HOSTILE_TEXTS

WIDTHS = (1, 2, 7, 20, 40, 80, 120, 200)
TEXTS = st.one_of(
    st.text(st.sampled_from("ab字ｱ\u0301\u200d👩👧🇩🇪\t  \n-。é\ufe0f❤"), max_size=120),
    st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=60),
    st.lists(st.sampled_from(["hello", "world,", "x" * 30, "字字字字", "a", "\n", "  b"])).map(
        " ".join
    ),
)


def wrap(text, width, column=0, cuts=(1,)):
    wrapping, shown, at, number = WordWrap(lambda: width, column=column), "", 0, 0
    while at < len(text):
        size = cuts[number % len(cuts)]
        shown += wrapping.push(text[at : at + size])
        at, number = at + size, number + 1
    return shown + wrapping.finish()


def width_of(line, column=0):
    for cluster in clusters(line):
        column += 8 - column % 8 if cluster == "\t" else columns(cluster)
    return column


def assert_only_breaks_added(shown, text):
    """Fail unless text becomes shown by line breaks between or instead of spaces."""
    at = 0
    for char in shown:
        if at < len(text) and char == text[at]:
            at += 1
        elif char == "\n":
            while at < len(text) and text[at] in " \t":
                at += 1
            at += at < len(text) and text[at] == "\n"
        else:
            while at < len(text) and text[at] in " \t":  # an indentation without room
                at += 1
            assert text[at : at + 1] == char
            at += 1
    assert text[at:].strip(" \t") == ""


def assert_fits(shown, width, column=0):
    for number, line in enumerate(shown.split("\n")):
        is_one_character = len(re.sub(r"[\u0300-\u036f\u200d\ufe0f]", "", line)) <= 1
        first = column if number == 0 else 0
        assert width_of(line, first) <= max(width, first) or is_one_character, (width, line)


@given(text=TEXTS, width=st.sampled_from(WIDTHS), column=st.sampled_from([0, 7]))
def test_no_line_is_wider_than_the_terminal_and_nothing_is_lost(text, width, column):
    shown = wrap(text, width, column)
    assert_fits(shown, width, column)
    assert_only_breaks_added(shown, text)
    assert re.sub(r"\s", "", shown) == re.sub(r"\s", "", text)


@given(text=TEXTS, width=st.sampled_from(WIDTHS), cuts=st.lists(st.integers(1, 9), min_size=1))
def test_the_cuts_do_not_matter(text, width, cuts):
    assert wrap(text, width, cuts=cuts) == wrap(text, width, cuts=(len(text) + 1,))


@pytest.mark.parametrize("name", HOSTILE_TEXTS)
def test_hostile_texts_fit_and_lose_nothing(name):
    text = HOSTILE_TEXTS[name]
    stream, pieces = PrintableStream(), re.findall(r"(?s).{1,3}", text)
    streamed = "".join(map(stream.push, pieces)) + stream.finish()
    assert streamed == printable(text)
    for width in (20, 80):
        shown = wrap(streamed, width, 7)
        assert_fits(shown, width, 7)
        assert_only_breaks_added(shown, streamed)


@given(text=TEXTS)
def test_a_text_that_fits_stays_as_it_is(text):
    assert wrap(text, 10_000) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("hello world again", "hello\nworld\nagain"),
        ("hello wo rld", "hello wo\nrld"),
        ("hello    world", "hello\nworld"),
        ("a\n\n  b\n", "a\n\n  b\n"),
        ("abcdefghijklmnopqrst", "abcdefghij\nklmnopqrst"),
        ("ab cdefghijklmnopq", "ab\ncdefghijkl\nmnopq"),
        ("abcdefghij klm", "abcdefghij\nklm"),
        ("寿限無寿限無", "寿限無寿限\n無"),
        ("寿限無寿限。", "寿限無寿\n限。"),
        ("ab寿限無寿", "ab寿限無寿"),
        ("👨‍👩‍👧 ok", "👨‍👩‍👧 ok"),
        ("ab 👨‍👩‍👧 👨‍👩‍👧", "ab 👨‍👩‍👧\n👨‍👩‍👧"),
        ("a\tb\tc", "a\tb\nc"),
        ("    if x:\n        y", "    if x:\n        y"),
    ],
)  # fmt: skip
def test_words_wrap_at_ten_columns(text, shown):
    assert wrap(text, 10) == shown


def test_a_word_is_shown_when_it_is_complete():
    wrapping = WordWrap(lambda: 20)
    assert [wrapping.push(piece) for piece in ("Hel", "lo", " wor", "ld", "\n")] == [
        "", "", "Hello", "", " world\n",
    ]  # fmt: skip


def test_a_word_of_a_line_of_its_own_is_shown_at_once():
    wrapping = WordWrap(lambda: 5)
    assert [wrapping.push(char) for char in "abcdefgh"] == ["", "", "", "", "", "", "abcde\nf", "g"]


def test_a_resize_counts_from_the_next_line_on():
    widths = [10]
    wrapping = WordWrap(lambda: widths[0])
    shown = wrapping.push("one two three ")
    widths[0] = 20
    assert shown + wrapping.push("four five six seven ") + wrapping.finish() == (
        "one two\nthree four\nfive six seven "
    )


def test_long_texts_take_linear_time():
    started = time.process_time()
    for text in ("\u0301" * 2**17, " " * 2**17, "\u200d👨" * 2**16, "a" * 2**17):
        wrap(text, 80, cuts=(5,))
    assert time.process_time() - started < 20
