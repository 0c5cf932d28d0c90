"""No regular expression of convo takes more than linear time, on any text that repeats a piece."""

from __future__ import annotations

import re

import pytest

from tests.patterns import slowness, uses

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


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_every_pattern_of_the_source_is_found_and_linear_on_pumped_texts(every):
    found, unknown = uses()
    assert not unknown  # a pattern that is built inside a call cannot be tested
    assert len(found) > 60
    assert {mode for use in found for mode in use.modes} == {"scan", "match", "fullmatch"}
    slow = {use.where: [slowness(use.pattern, mode, every) for mode in use.modes] for use in found}
    assert {where: each for where, each in slow.items() if any(each)} == {}


@pytest.mark.parametrize("name", BAD)
def test_pumped_texts_find_patterns_that_are_not_linear(name):
    pattern, mode = BAD[name]
    assert slowness(re.compile(pattern), mode)
