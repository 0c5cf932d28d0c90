"""The parts of the fast lane; that the whole tells the truth is a law of its own."""

from __future__ import annotations

import json
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convo_cli.data.checks.literals import Literals, find_strings, fold, plain, restore
from convo_cli.data.checks.sieve import Alphabet, begin_oddly, odd_ascii
from convo_cli.data.checks.suspicions import may_be_odd
from convo_cli.data.fingerprint import normalised

TEXTS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters=[chr(i) for i in range(32) if i not in (9, 10)])
)


@given(TEXTS, st.booleans())
def test_a_text_is_the_same_after_its_escapes_were_resolved(text: str, is_ascii: bool) -> None:
    line = json.dumps([text], ensure_ascii=is_ascii).encode() + b"\n"
    resolved = plain(line)
    assert resolved.count(b'"') == 2
    assert restore(resolved[2:-3]).decode() == text


def is_plain(line: bytes) -> bool:
    try:
        plain(line + b"\n")
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    "line",
    [
        b'["a\x07"]', b'["a\xff"]', b'["\\u0000"]', b'["\\u0022"]', b'["\\u005C"]', b'["\\r"]', b'["\\x41"]',
        b'["\\u12"]', b'["\\ud800"]', b'["\\ude42\\ud83d"]', b'[f\\u0061lse]', b'["\\U0001F642"]',
        b'["a\tb"]', b"\xed\xa0\x80", b'["\\',
    ],
)  # fmt: skip
def test_what_only_the_slow_lane_can_judge_is_left_to_it(line: bytes) -> None:
    assert not is_plain(line)
    assert is_plain(b'["\\u00e9\\ud83d\\ude42 \\" \\\\u0000"]')


@given(st.lists(st.sampled_from(["Hello", "a", "B", '"', "\\", "\n", "\t", "x y"]), min_size=1))
def test_folded_ascii_is_the_normalised_text(words: list[str]) -> None:
    text = " ".join(words).strip()
    line = plain(json.dumps([text]).encode() + b"\n")
    assert fold(line[2:-3]).decode() == normalised(text)


def signatures(literals: Literals, *lines: str) -> list[bytes]:
    block = b"\n" + plain("".join(line + "\n" for line in lines).encode())
    strings = find_strings(block)
    assert strings is not None
    return literals.signatures(block, strings)


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        ('["a", "b"]', '["Hello", "안녕"]', True),
        ('["a", "b"]', '["a","b"]', False),
        ('["a", "b"]', '["a", ""]', False),
        ('["a", "b"]', '["a", "b", "c"]', False),
        ('{"id": 1, "turns": ["a"]}', '{"id": -2.5e3, "turns": ["b"]}', True),
        ('{"id": 1, "turns": ["a"]}', '{"id": "1", "turns": ["b"]}', False),
        ('{"id": 1, "turns": ["a"]}', '{"id": 01, "turns": ["b"]}', False),
        ('{"id": 1, "turns": ["a"]}', '{"id": 1e999, "turns": ["b"]}', False),
        ('{"a1": 1, "turns": ["a"]}', '{"a2": 1, "turns": ["a"]}', False),
        ('{"x: 1,": 1, "turns": ["a"]}', '{"x: 2,": 1, "turns": ["a"]}', False),
        ('[{"role": "user", "content": "a"}]', '[{"role": "user", "content": "b"}]', True),
        ('[{"role": "user", "content": "a"}]', '[{"role": "bot", "content": "a"}]', False),
        ('[{"role": "user", "content": "a"}]', '[{"role": "user", "content": "a", "train": true}]', False),
        ('{"ok": true, "turns": ["a"]}', '{"ok": false, "turns": ["a"]}', False),
    ],
)
def test_lines_of_one_signature_are_the_same_but_for_texts_and_numbers(first: str, second: str, is_same: bool) -> None:
    one, other = signatures(Literals(), first, second)
    assert (one == other) == is_same


def test_a_signature_stays_the_same_however_often_its_literals_were_met() -> None:
    literals = Literals()
    line = '{"id": "x", "turns": ["a", "b"]}'
    (first,) = signatures(literals, line)
    assert set(signatures(literals, *[line] * 100)) == {first} == set(signatures(literals, *[line] * 100))
    assert literals.of(first) == [b'\n{"id": "', b'", "turns": ["', b'", "', b'"]}\n']


def test_a_key_with_space_before_its_colon_is_never_taken_for_a_text() -> None:
    literals = Literals()
    (signature,) = signatures(literals, '{"turns": ["a"], "id" : 1}')
    assert literals.of(signature) is None


def test_a_line_with_a_quote_that_has_no_partner_has_no_strings() -> None:
    assert find_strings(b'\n["a]\n["b"]\n') is None


WORDS = st.sampled_from(
    [
        "Hello there", "User: hi", "A: yes", "12", "+3,5", "label", "[deleted]", "array([1])", "b'x'", "Bot: hi",
        "BOT: hi", "x" * 40, "{'role': 'user'}", "[INST]", "a & b", "&amp;", "a\\n\\nb", "word ##ing", "__eou__",
        "\x7f", "null", "é",
    ]
)  # fmt: skip


@given(st.lists(WORDS, min_size=1, max_size=6))
def test_the_sieve_holds_back_whatever_may_be_odd(texts: list[str]) -> None:
    flat = "\0".join(texts)
    ends = np.cumsum([len(text.encode()) + 1 for text in texts]) - 1
    starts = ends - [len(text.encode()) for text in texts]
    block = flat.encode().replace(b'"', b"\1").replace(b"\\", b"\2") + b"\n\n\n"
    points = np.frombuffer(flat.encode("utf-32-le"), np.uint32)
    is_held = begin_oddly(block, starts, ends).any() or len(odd_ascii(block)) or len(Alphabet().odd(points))
    assert is_held or not may_be_odd(flat)


@given(st.text(st.characters(min_codepoint=160, exclude_categories=["Cs"]), max_size=8).map(lambda text: f"a{text}a"))
def test_text_without_a_character_that_folds_is_normalised_as_it_is(text: str) -> None:
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    assert len(Alphabet().folded(points)) or normalised(text) == text


def test_characters_that_join_with_the_one_before_are_known() -> None:
    joining = [char for char in map(chr, range(0x300, 0x20000)) if not char.isspace() and unicodedata.combining(char)]
    joining += ["\u1161", "\u11a8"]  # a Hangul vowel and a final consonant: no marks, and yet they join
    points = np.array(list(map(ord, joining)), np.uint32)
    assert len(Alphabet().folded(points)) == len(joining)
