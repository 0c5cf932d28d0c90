"""Hostile lines are read in linear time, with the results of plain, slow code."""

from __future__ import annotations

import gc
import json
import re
import sys
import time
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from convo_cli.config.schema import DataConfig
from convo_cli.data.checks import suspicions
from convo_cli.data.checks.validate import validate_files
from convo_cli.data.fingerprint import normalised
from convo_cli.data.reader import iter_lines
from convo_cli.data.repair import lenient_json
from convo_cli.data.repair.copies import repair_files
from convo_cli.data.shapes.reasoning import _tag_fault, _without_blocks

NUMBER = r"[-+]?[0-9]+(?:[.,][0-9]+)?"
NUMBERS = re.compile(rf"{NUMBER}(?:[ \t,;|]+{NUMBER})*")
BLOCKS = re.compile(
    r"(?<!\s)(\s*)(?:<think\s*>.*?</think\s*>(\s*))+", re.IGNORECASE | re.ASCII | re.DOTALL
)
STRING_OR_LAST_COMMA = re.compile(r'("[^"\\]*(?:\\.[^"\\]*)*")|,([ \t\r\n]*[\]}])', re.DOTALL)


def texts(*pieces, size=14):
    return st.lists(st.sampled_from(pieces), max_size=size).map("".join)


@given(texts("1", "23", ".", ",", "-", "+", " ", ";", "x", "\n"))
@example("1,2.3")
@example("1.2,3")
@example("1.2.3")
@example("1,-2")
@example("1,,2")
def test_a_list_of_numbers_is_recognised_as_by_the_plain_pattern(text):
    assert bool(suspicions._NUMBERS.fullmatch(text)) == bool(NUMBERS.fullmatch(text))


@given(
    texts("<think>", "</think>", "<THINK >", "</think\t>", " ", "\n", "a", "\u00a0", "<", size=12)
)
@example("a <think>b</think>  <think>c</think> \n d")
@example(" <think></think>")
def test_reasoning_is_dropped_as_by_the_plain_pattern(text):
    if "<" in text and re.search(r"(?i)<think\s*>", text) and not _tag_fault(text):
        assert _without_blocks(text) == BLOCKS.sub(
            lambda found: max(found[1], found[2], key=len), text
        )


@given(texts('"', "\\", ",", "]", "}", " ", "a", "["))
def test_a_last_comma_is_found_wherever_the_strings_of_a_line_end(text):
    if _strings_end(text):
        assert lenient_json._STRING_OR_LAST_COMMA.sub(r"\1\2", text) == STRING_OR_LAST_COMMA.sub(
            r"\1\2", text
        )


def _strings_end(text):
    rest = STRING_OR_LAST_COMMA.sub(lambda found: "" if found[1] else found[0], text)
    return '"' not in rest


@given(
    st.lists(
        st.sampled_from("aé\u0301\u0316\u0344\u0f73\uff9e\u0f71\u05b0가\u1161"), max_size=200
    ).map("".join)
)
def test_marks_in_any_order_have_one_normal_form(text):
    assert normalised(text) == " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def test_long_runs_of_marks_have_the_normal_form_of_unicode():
    text = "a" + "\u0301\u0316\u0344\u0f73\uff9e" * 50 + "b" + "\u05b0\u0591" * 40
    assert normalised(text) == unicodedata.normalize("NFKC", text).casefold()


# Readers


def check(path):
    validate_files([path], DataConfig(train=(path,)))


def check_and_list_all(path):
    validate_files([path], DataConfig(train=(path,)), max_problems=10**6)


def fix(path):
    repair_files([path], lambda line: None, DataConfig(train=(path,)))


def read(path):
    list(iter_lines(path, lambda problem: None))


# Work


def line(turn):
    return lambda n: json.dumps({"messages": [turn(i) for i in range(n)]}, ensure_ascii=False)


def parts(text):
    return lambda n: "[" + ",".join([text] * n) + "]"


PROBLEMS = {
    "not-a-turn": parts("5"),
    "empty-utterance": parts('" "'),
    "not-a-number": parts("NaN"),
    "control-character": parts('"a\\u0007"'),
    "duplicate-key": lambda n: '{"turns":["a","b"],' + ",".join(['"x":1'] * n) + "}",
    "unread keys": lambda n: (
        '{"turns":["a","b"],' + ",".join(f'"k{i}":"{"b " * 20}"' for i in range(n)) + "}"
    ),
    "missing-key": line(lambda i: {"a": "b"}),
    "unknown-speaker, text-not-string": line(lambda i: {"content": i, "role": "narrator"}),
    "train-value": line(lambda i: {"train": "x", "role": "user", "content": "a"}),
    "misspelt-key": line(lambda i: {"contnt": 1, "role": "user", "content": "a", "tran": True}),
    "reasoning": line(lambda i: {"role": "assistant", "content": "<think>", "thinking": "hm"}),
    "history": lambda n: json.dumps({"prompt": 1, "completion": 2, "history": [["a", 1]] * n}),
    "suspicious texts": parts('"a\u200b &amp; <|end|> \ufffd"'),
    "kinds that alternate": line(
        lambda i: [{"content": i, "role": 5}, 5, "a", {"role": "user", "tran": 1}][i % 4]
    ),
}


def in_turn(names, readers):
    """Return every name with every reader; all but one reader of each name, in turn, are slow."""
    return [
        pytest.param(
            name,
            reader,
            id=f"{reader.__name__}-{name}",
            marks=[pytest.mark.slow] * ((row + column) % len(readers) != 0),
        )
        for row, name in enumerate(names)
        for column, reader in enumerate(readers)
    ]


@pytest.mark.parametrize(("name", "reader"), in_turn(PROBLEMS, [check_and_list_all, fix]))
def test_the_work_grows_with_the_number_of_problems_in_a_line_and_not_with_its_square(
    tmp_path, name, reader
):
    def num_calls(num_problems):
        path = tmp_path / f"{num_problems}.jsonl"
        path.write_text(PROBLEMS[name](num_problems) + "\n", encoding="utf-8")
        calls = 0

        def count(frame, event, arg):
            nonlocal calls
            calls += event in ("call", "c_call")

        sys.setprofile(count)
        try:
            reader(str(path))
        finally:
            sys.setprofile(None)
        return calls

    num_calls(800)  # fills the caches
    assert num_calls(800) < 5 * num_calls(200)  # linear: 4 times, quadratic: 16 times


# Time


LINES = {
    "numbers": lambda n: '["hi","' + "7,14," * (n // 5) + 'and so on"]',
    "cut off, escaped quotes": lambda n: '["hi","x' + '\\"' * (n // 2),
    "cut off, escaped quotes, a backslash": lambda n: '["hi","x' + '\\"' * (n // 2) + "\\",
    "carriage returns": lambda n: '["a",' + "\r" * n + '"b"]',
    "marks in two orders": lambda n: '["hi","a' + "\u0301\u0316" * (n // 4) + '"]',
    "tags that never close": lambda n: '["hi","' + "<think>" * (n // 7) + '"]',
    "lists instead of turns": lambda n: "[" + "[]," * (n // 3) + '"a"]',
    "turns without a role": lambda n: "[" + '{"text":"a"},' * (n // 13) + '{"text":"b"}]',
    "values that each have a fault": lambda n: (
        "[" + '{"turns":["a","b"],"x":1,"x":1},' * (n // 32) + '["a","b"]]'
    ),
    "large values on many levels": lambda n: '{"a":' * 60 + '["' + "x" * n + '"]' + "}" * 60,
    "unread texts": lambda n: (
        '{"turns":[' + ",".join(f'"{"b" * 39} {i}"' for i in range(n // 100))
        + "]," + ",".join(f'"k{i}":"{"b " * 20}"' for i in range(n // 100)) + "}"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "reader"), in_turn(LINES, [check, check_and_list_all, fix, read]))
def test_a_hostile_line_takes_linear_time(tmp_path, name, reader):
    def seconds(size):
        path = tmp_path / f"{size}.jsonl"
        path.write_bytes((LINES[name](size) + "\n").encode())
        gc.collect()
        gc.freeze()  # else each collection also visits the objects of all earlier tests
        try:
            started = time.process_time()
            reader(str(path))
            return time.process_time() - started
        finally:
            gc.unfreeze()

    seconds(1000)
    small, large = 110_000, 330_000  # both above 100 kB, from where the exact reader reads a line
    for _ in range(5):  # a busy machine slows the longer one more, because it leaves the cache
        taken, longer = seconds(small), seconds(large)
        if longer < 7 * max(taken, 0.04):  # linear: 3 times, quadratic: 9 times
            return
    pytest.fail(f"{taken:.2f} s for {small:,} bytes, {longer:.2f} s for {large:,}")
