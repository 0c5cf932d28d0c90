"""No regular expression of convo takes more than linear time, on any text that repeats a piece."""

from __future__ import annotations

import re

import pytest

from tests.patterns import slowness, uses

USES, UNKNOWN = uses()

BAD = {
    "exponential": (
        r"\0[-+]?[0-9]+(?:[.,][0-9]+)?(?:[ \t,;|]+[-+]?[0-9]+(?:[.,][0-9]+)?)*(?=\0)",
        "scan",
    ),
    "nested": (r"(?:a+)+b", "fullmatch"),
    "alternatives": (r"(?:a|ab|b)*c", "match"),
    "beside each other": (r"[ab]*[bc]*x", "match"),
    "strings that never end": (r'("[^"\\]*(?:\\.[^"\\]*)*")|,([ \t\r\n]*[\]}])', "scan"),
    "tags that never close": (r"(?s)<think\s*>(.*?)</think\s*>\s*", "scan"),
    "line ends": (r"\r+\n", "scan"),
    "a digit far away": (r"(?=[^0-9]*[0-9])[0-9A-Za-z_.:+-]{1,80}", "scan"),
    "bytes": (rb"[a-z]+ *=", "scan"),
}


def test_every_pattern_of_the_source_is_found():
    assert not UNKNOWN  # a pattern that is built inside a call cannot be tested
    assert len(USES) > 60
    assert {mode for use in USES for mode in use.modes} == {"scan", "match", "fullmatch"}


@pytest.mark.parametrize("name", BAD)
def test_pumped_texts_find_patterns_that_are_not_linear(name):
    pattern, mode = BAD[name]
    assert slowness(re.compile(pattern), mode)


@pytest.mark.parametrize("use", USES, ids=lambda use: use.where)
def test_a_pattern_is_linear_on_pumped_texts(use):
    assert [found for mode in use.modes if (found := slowness(use.pattern, mode))] == []
