from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from convo_cli.data.problem_kinds import KINDS
from convo_cli.data.problems import Problem
from convo_cli.data.strict_json.columns import locate
from convo_cli.data.strict_json.decoder import decode
from convo_cli.data.strict_json.faults import MAX_DEPTH

TEXTS = st.text(
    st.characters(
        exclude_categories=["Cs"],
        exclude_characters=[chr(i) for i in range(32) if i not in (9, 10)],
    )
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda children: st.lists(children, max_size=5) | st.dictionaries(TEXTS, children, max_size=5),
    max_leaves=20,
)
LINES = st.builds(
    lambda value, is_ascii, separators: json.dumps(
        value, ensure_ascii=is_ascii, separators=separators
    ).encode(),
    VALUES,
    st.booleans(),
    st.sampled_from([(",", ":"), (", ", ": "), (" ,", " :"), ("\t,\r", "\n: ")]),
)
PIECES = st.sampled_from(
    [
        *rb"""" [ ] { } , : \ \u00 \ud800 \r NaN -Infinity 1e999 - 01 nul None '""".split(),
        *(
            b" ",
            b"\t",
            b"\n",
            b"\0",
            b"\x07",
            b"\x7f",
            b"\xff",
            b"\xc2\x85",
            b"\xed\xa0\x80",
            b"\xef\xbb\xbf",
        ),
    ]
)


@st.composite
def damaged_lines(draw: st.DrawFn) -> bytes:
    """A good line with some bytes cut out and something else put in their place."""
    line = draw(LINES)
    start = draw(st.integers(0, len(line)))
    end = draw(st.integers(start, min(len(line), start + 3)))
    return line[:start] + draw(PIECES | st.binary(max_size=2)) + line[end:]


def read(raw: bytes) -> tuple[Any, list[Problem]]:
    problems: list[Problem] = []
    return decode(raw, problems.append), problems


def only_problem(text: str | bytes) -> tuple[str, int, str]:
    value, problems = read(text.encode() if isinstance(text, str) else text)
    assert value is msgspec.UNSET
    (problem,) = problems
    return problem.code, problem.column, problem.path


def strictly_by_the_standard_library(raw: bytes) -> Any:
    """Decode as strictly, with slow and plain code; ValueError if the line must be refused."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("duplicate key")
        return dict(pairs)

    def no_constant(name: str) -> None:
        raise ValueError(name)

    def check(value: Any, depth: int = 0) -> None:
        if isinstance(value, str):
            value.encode()
            if any(char < " " and char not in "\n\t" for char in value):
                raise ValueError("control character")
        elif isinstance(value, (list, dict)):
            if depth == MAX_DEPTH:
                raise ValueError("too deep")
            for child in value:
                check(child, depth + 1)
            for child in value.values() if isinstance(value, dict) else ():
                check(child, depth + 1)
        elif isinstance(value, (int, float)):
            try:
                is_finite = math.isfinite(value)
            except OverflowError:
                is_finite = False
            if not is_finite:
                raise ValueError("out of range")

    value = json.loads(raw.decode(), object_pairs_hook=unique, parse_constant=no_constant)
    check(value)
    return value


@given(LINES)
@example(b'[":)", "a \\"quoted\\" : word", {"a": ": b", "c" : "\\"d\\":"}]')
@example(b'["C:\\\\readme", "\\\\u0000", "\\u00e9"]')
def test_every_output_of_a_json_library_is_read_back(raw: bytes) -> None:
    value, problems = read(raw)
    assert problems == []
    assert value == json.loads(raw)


@given(damaged_lines() | st.binary(max_size=30) | LINES)
def test_a_line_is_accepted_exactly_if_a_strict_standard_library_accepts_it(
    raw: bytes,
) -> None:
    value, problems = read(raw)
    try:
        expected = strictly_by_the_standard_library(raw)
    except (ValueError, RecursionError):
        assert value is msgspec.UNSET
        assert problems
    else:
        assert problems == []
        assert value == expected


@given(damaged_lines() | st.binary())
def test_any_bytes_are_a_value_or_a_problem_within_the_line(raw: bytes) -> None:
    value, problems = read(raw)
    assert (value is msgspec.UNSET) == bool(problems)
    for problem in problems:
        assert KINDS[problem.code].severity == "error"
        assert 1 <= problem.column <= len(raw.decode("utf-8", "surrogateescape")) + 1
        assert problem.path.startswith("$")
        assert problem.message.isprintable()


@given(VALUES, st.booleans())
def test_locate_finds_the_columns_of_all_paths_in_one_scan(value: Any, is_ascii: bool) -> None:
    line = "  " + json.dumps(value, ensure_ascii=is_ascii)
    values: dict[str, Any] = {}

    def collect(value: Any, path: str) -> None:
        values[path] = value
        for index, child in enumerate(value if isinstance(value, list) else ()):
            collect(child, f"{path}[{index}]")

    collect(value, "$")
    for paths in (list(values), [list(values)[-1]]):
        for path, column in locate(line.encode(), paths).items():
            found, _ = json.JSONDecoder().raw_decode(line, column - 1)
            assert found == values[path]


@pytest.mark.parametrize(
    ("line", "code", "column", "path"),
    [
        ('["Hi", "Do you like tea?, "Yes."]', "invalid-json", 28, "$"),
        ('["a",]', "invalid-json", 5, "$"),
        ('{"a": 1,}', "invalid-json", 8, "$"),
        ("{'a': 1}", "invalid-json", 2, "$"),
        ("['a']", "invalid-json", 2, "$[0]"),
        ('["a", None]', "invalid-json", 7, "$[1]"),
        ('["a" "b"]', "invalid-json", 6, "$"),
        ('{"a" 1}', "invalid-json", 6, "$"),
        ('["\\x41"]', "invalid-json", 3, "$[0]"),
        ('["a\tb"]', "invalid-json", 4, "$[0]"),
        ("Hello there", "invalid-json", 1, "$"),
        ('["a", "b', "truncated-json", 7, "$[1]"),
        ('["a", ', "truncated-json", 7, "$[1]"),
        ('{"a": [1', "truncated-json", 9, "$.a"),
        ('{"a"', "truncated-json", 5, "$"),
        ('["a"] ["b"]', "extra-data", 7, "$"),
        ('["a"],', "extra-data", 6, "$"),
        ('["a", NaN]', "not-a-number", 7, "$[1]"),
        ('{"score": -Infinity}', "not-a-number", 11, "$.score"),
        ('["a", 1e999]', "number-too-large", 7, "$[1]"),
        ('{"id": ' + "9" * 5000 + "}", "number-too-large", 8, "$.id"),
        ('{"id": ' + "9" * 400 + "}", "number-too-large", 8, "$.id"),
        ('{"a": 1, "b": 2, "a": 3}', "duplicate-key", 18, "$.a"),
        ('{"a": 1, "\\u0061": 3}', "duplicate-key", 10, "$.a"),
        ('[{"role": "user", "role": "user"}]', "duplicate-key", 19, "$[0].role"),
        ('{"x": {"odd key": 1, "odd key": 2}}', "duplicate-key", 22, '$.x["odd key"]'),
        ('["é", "a\\ud800"]', "lone-surrogate", 9, "$[1]"),
        ('["\\ude00\\ud83d"]', "lone-surrogate", 3, "$[0]"),
        ('["a\\u0000"]', "nul-character", 4, "$[0]"),
        ('["a\0"]', "nul-character", 4, "$[0]"),
        ('["a\\u0007"]', "control-character", 4, "$[0]"),
        ('["a\x1b[31m"]', "control-character", 4, "$[0]"),
        ('{"a\\u0007": 1}', "control-character", 4, "$"),
        (
            "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1),
            "nesting-too-deep",
            MAX_DEPTH + 1,
            "$" + "[0]" * MAX_DEPTH,
        ),
        ("[" * 100_000, "nesting-too-deep", MAX_DEPTH + 1, "$" + "[0]" * MAX_DEPTH),
        ('\ufeff["a"]', "stray-bom", 1, "$"),
        (b'["\xc3\xa9 caf\xe9"]', "not-utf8", 8, "$[0]"),
        (b'["a", \xff]', "not-utf8", 7, "$[1]"),
        (b'["\xed\xa0\x80"]', "not-utf8", 3, "$[0]"),
    ],
)
def test_a_fault_is_named_with_its_column_and_path(
    line: str | bytes, code: str, column: int, path: str
) -> None:
    assert only_problem(line) == (code, column, path)


def test_faults_are_reported_up_to_the_first_that_makes_the_rest_meaningless() -> None:
    _, problems = read(b'{"a": NaN, "a": "\\u0000\\ud800", "b": \x07}')
    assert [problem.code for problem in problems] == [
        "not-a-number", "duplicate-key", "nul-character", "lone-surrogate", "invalid-json",
    ]  # fmt: skip


def test_a_fault_that_repeats_within_one_text_is_reported_once() -> None:
    assert only_problem('["a\\fb\\fc"]') == ("control-character", 4, "$[0]")


def test_the_deepest_allowed_nesting_is_read() -> None:
    value, problems = read(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    assert problems == []
    assert isinstance(value, list)


def test_escaped_newlines_and_tabs_are_allowed() -> None:
    assert read(b'["a\\r\\n\\tb", "\\u000a\\u0009"]') == (["a\r\n\tb", "\n\t"], [])


def test_a_path_that_does_not_exist_has_column_1() -> None:
    assert locate(b'["a"]', ["$.b"]) == {"$.b": 1}
