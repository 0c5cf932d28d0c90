from __future__ import annotations

import gzip
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from convo_cli.config.schema import DataConfig, SpeakersConfig
from convo_cli.data.checks.validate import validate_files
from convo_cli.data.problem_kinds import KINDS
from convo_cli.data.repair.copies import repair_files
from convo_cli.data.repair.repairs import REPAIRS, RepairReport
from convo_cli.errors import UsageError
from convo_cli.events import Event, Progress
from tests.conftest import corpus
from tests.faulty_files import BOM, CASES, GOOD, Case, amid
from tests.memory import with_peak

CONFIG = DataConfig(train=("unused",))
BY_NAME = {case.name: case for case in CASES}
INNOCENT = [
    case.name
    for case in CASES
    if not case.findings
    and case.content.endswith(b"\n")
    and case.name != "fine blank last lines"
    and b"\r\n" not in case.content
    and not case.content.startswith(BOM)
    and case.suffix == ".jsonl"
]
PIECES = st.sampled_from(
    [
        *(
            b'"',
            b"[",
            b"]",
            b"{",
            b"}",
            b",",
            b":",
            b" ",
            b"\n",
            b"\r",
            b"\\",
            b"\\n",
            b"\0",
            b"\x1b[1m",
            b"\\u0007",
            b"\\ud800",
        ),
        *(
            b"NaN",
            b"1e999",
            b"'",
            b"None",
            b"null",
            b"\xef\xbb\xbf",
            b"\xe9",
            b"\x93",
            b"\xc3\xa9",
            "Ã©".encode(),
            b"&amp;amp;",
        ),
        *(
            "\u200b\u200d".encode(),
            b"\x7f",
            "\u2028".encode(),
            b'""',
            b'["a", "b"]',
            b'"train": "false",',
            b'"id": 1, "id": 1,',
        ),
        *(
            b'"mesages"',
            b'{"role": "user", "content": " "},',
            b'[{"type": "text", "text": "x"}]',
            b"],[",
        ),
    ]
)


def fix(
    path: Path | str, config: DataConfig = CONFIG, **options: Any
) -> tuple[bytes, RepairReport]:
    out: list[bytes] = []
    report = repair_files([str(path)], out.append, config, **options)
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in out)
    assert report.num_written == len(out)
    return b"".join(out), report


def fix_bytes(
    folder: Path, content: bytes, config: DataConfig = CONFIG, **options: Any
) -> tuple[bytes, RepairReport]:
    path = folder / "in.jsonl"
    path.write_bytes(content)
    return fix(path, config, **options)


def fix_line(folder: Path, line: bytes | str, **options: Any) -> list[Any]:
    """Return what a repair makes of a line between two good ones."""
    fixed, _ = fix_bytes(
        folder, amid(line if isinstance(line, bytes) else line.encode()), **options
    )
    return [json.loads(part) for part in fixed.splitlines()[1:-1]]


def errors_in(folder: Path, content: bytes) -> list[str]:
    path = folder / "out.jsonl"
    path.write_bytes(content)
    (file,) = validate_files([str(path)], CONFIG).files
    return [group.code for group in file.problem_groups if group.severity == "error"]


def assert_sound(folder: Path, fixed: bytes) -> None:
    """Require that the written lines have no error and need no repair."""
    assert errors_in(folder, fixed) == ([] if fixed else ["empty-file"])
    again, report = fix(folder / "out.jsonl")
    assert again == fixed
    assert report.num_unchanged == report.num_lines == report.num_written


@pytest.mark.parametrize("name", list(BY_NAME))
def test_what_is_written_has_no_error_and_nothing_more_to_repair(tmp_path: Path, name: str) -> None:
    case = BY_NAME[name]
    path = tmp_path / case.file_name
    path.write_bytes(case.content)
    fixed, report = fix(path)
    assert_sound(tmp_path, fixed)
    assert {group.code for group in report.repaired} <= set(REPAIRS) <= set(KINDS)
    has_errors = any(KINDS[finding.code].severity == "error" for finding in case.findings)
    assert bool(report.repaired or report.left_out) >= has_errors


@pytest.mark.parametrize("name", INNOCENT)
def test_a_clean_file_comes_out_byte_for_byte(tmp_path: Path, name: str) -> None:
    content = BY_NAME[name].content
    fixed, report = fix_bytes(tmp_path, content)
    assert fixed == content
    assert (report.repaired, report.left_out) == ((), ())
    assert report.num_unchanged == report.num_lines


@st.composite
def damaged_files(draw: st.DrawFn) -> bytes:
    content = b"".join(
        draw(st.lists(st.sampled_from([case.content for case in _SMALL]), min_size=1, max_size=3))
    )
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(content)))
        end = start + draw(st.integers(0, 3))
        content = content[:start] + draw(PIECES | st.binary(max_size=2)) + content[end:]
    return content


_SMALL: list[Case] = [case for case in CASES if len(case.content) < 500 and case.suffix == ".jsonl"]


@given(damaged_files())
@example(GOOD + b'["&amp;amp;amp;", "a\xe2\x80\x8b\xe2\x80\x8db"]\n')
def test_whatever_the_damage_what_is_written_is_sound(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("data")
    fixed, _ = fix_bytes(folder, content)
    assert_sound(folder, fixed)


@given(damaged_files())
def test_every_good_line_is_written_as_it_is_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    fixed, _ = fix_bytes(tmp_path_factory.mktemp("data"), GOOD + content + b"\n" + GOOD)
    lines = fixed.splitlines(keepends=True)
    assert [lines[:3], lines[-3:]] == [GOOD.splitlines(keepends=True)] * 2


@pytest.mark.parametrize(
    ("line", "fixed"),
    [
        (BOM + b'["Hello", "Hi!"]', [["Hello", "Hi!"]]),
        (b'["caf\xe9 \x96 it\x92s", "Hi!"]', [["café – it’s", "Hi!"]]),
        (
            '["Hello", "Hi!"]["Bye", "Bye!"], ["A", "B"]',
            [["Hello", "Hi!"], ["Bye", "Bye!"], ["A", "B"]],
        ),
        ('[["Hello", "Hi!"], ["Bye"], ["A", "B"]]', [["Hello", "Hi!"], ["A", "B"]]),
        ('[\n["Hello", "Hi!"],\n["Bye", "Bye!"]\n]', [["Hello", "Hi!"], ["Bye", "Bye!"]]),
        ('[["Hello", "Hi\u200b!"], ["A", "B"]]', [[["Hello", "Hi!"], ["A", "B"]]]),
        (
            '{"messages": "[{\\"user\\": \\"Hi\\u200b!\\"}, {\\"bot\\": \\"A\\"}]"}',
            [{"messages": [{"user": "Hi!"}, {"bot": "A"}]}],
        ),
        ('["Hello, ]", "Hi!", ]', [["Hello, ]", "Hi!"]]),
        ("['Hello', \"It's\"]", [["Hello", "It's"]]),
        (
            "{'turns': ['a', 'b'], 'ok': True, 'id': None}",
            [{"turns": ["a", "b"], "ok": True, "id": None}],
        ),
        ('["\\u001b[31mHello\\u001b[0m", "Hi\\r\\nyou\\u0000"]', [["Hello", "Hi\nyou"]]),
        ('["Hello \\ud83d", "\\ud83d\\ude00"]', [["Hello ", "😀"]]),
        (
            '{"turns": ["a", "b"], "x": NaN, "y": -1e999}',
            [{"turns": ["a", "b"], "x": None, "y": "-1e999"}],
        ),
        ('{"id": 1, "turns": ["a", "b"], "id": 1}', [{"id": 1, "turns": ["a", "b"]}]),
        ('["Hello", "Hi!", "", " "]', [["Hello", "Hi!"]]),
        (
            '["Hello", "", "Anyone?", "Yes"]',
            [
                [
                    {"role": "user", "content": "Hello"},
                    {"role": "user", "content": "Anyone?"},
                    {"role": "assistant", "content": "Yes"},
                ]
            ],
        ),
        (
            (
                '[{"role": "user", "content": "a"}, {"role": "user", "content": ""}, '
                '{"role": "bot", "content": "b"}]'
            ),
            [[{"role": "user", "content": "a"}, {"role": "bot", "content": "b"}]],
        ),
        (
            (
                '{"mesages": [{"rle": "user", "contents": "a"}, '
                '{"role": "assistant", "content": "b", "train": "True"}]}'
            ),
            [
                {
                    "messages": [
                        {"role": "user", "content": "a"},
                        {"role": "assistant", "content": "b", "train": True},
                    ]
                }
            ],
        ),
        (
            '{"prompt": "Tom &amp;amp; J&eacute;rry", "completion": "`&amp;`"}',
            [{"prompt": "Tom & Jérry", "completion": "`&amp;`"}],
        ),
        (
            '["It&#39;s https://a.org/?b=1&copy=2", "cafÃ©\u200b"]',
            [["It's https://a.org/?b=1&copy=2", "café"]],
        ),
    ],
)
def test_faults_that_need_no_guess_are_repaired(
    tmp_path: Path, line: bytes | str, fixed: list[Any]
) -> None:
    assert fix_line(tmp_path, line) == fixed


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('["Hello", "Hi the', "truncated-json"),
        ('["Hello" "Hi!"]', "invalid-json"),
        ("['Hello' 'Hi!']", "invalid-json"),
        ('{"turns": ["a", "b"], "turns": ["c", "d"]}', "duplicate-key"),
        ('{"turns": ["a", "b"], "n": 1, "n": true}', "duplicate-key"),
        ('["안녕", "Hi!"]'.encode("cp949"), "not-utf8"),
        (b'["caf\xc3", "Hi!"]', "not-utf8"),
        ('["Jest miło", "Hi!"]'.encode("iso-8859-2"), "not-utf8"),
        (
            '[{"role": "narrator", "content": "a"}, {"role": "assistant", "content": "b"}]',
            "unknown-speaker",
        ),
        ('["a"]', "no-target"),
        ('["Hello", ""]', "empty-utterance"),
        ('["speaker", "text"]', "label-row"),
        ('["0 0 0 4", "1 1 2"]', "label-row"),
        (
            '[{"role": "user", "content": 5}, {"role": "assistant", "content": "b"}]',
            "text-not-string",
        ),
        ('{"turns": ["a", "b"], "train": }', "invalid-json"),
        ("[" * 2000, "nesting-too-deep"),
    ],
)
def test_lines_that_need_a_guess_are_left_out_and_reported(
    tmp_path: Path, line: bytes | str, code: str
) -> None:
    raw = line if isinstance(line, bytes) else line.encode()
    fixed, report = fix_bytes(tmp_path, amid(raw))
    assert fixed == amid(b"").replace(b"\n\n", b"\n")
    (group,) = report.left_out
    assert (group.code, group.count) == (code, 1)
    assert "--fix" not in group.what
    assert [(problem.line, problem.file) for problem in group.problems] == [
        (2, str(tmp_path / "in.jsonl"))
    ]
    assert (report.num_lines, report.num_unchanged, report.num_repaired, report.num_left_out) == (
        3,
        2,
        0,
        1,
    )


def test_a_warning_that_cannot_be_repaired_stays_as_it_is(tmp_path: Path) -> None:
    for text in (
        "NULL",
        "안녕하세요".encode("cp949").decode("latin-1"),
        "Hello</s>",
        "\ue000 Hi",
        "\\n\\nA",
    ):
        content = amid(["What?", text])
        assert fix_bytes(tmp_path, content)[0] == content


def test_a_repair_that_would_lose_the_dialogue_is_not_made(tmp_path: Path) -> None:
    line = ["Hello", "\u200b"]
    assert fix_line(tmp_path, json.dumps(line)) == [line]


def test_one_bad_dialogue_of_an_array_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    content = amid([["a", "b"], ["c"], ["d", "e\u200b"]])
    fixed, report = fix_bytes(tmp_path, content)
    assert fixed == amid(b'["a","b"]\n["d","e"]')
    assert [(group.code, group.count) for group in report.repaired] == [
        ("array-of-dialogues", 1),
        ("zero-width", 1),
    ]
    assert [(group.code, group.count) for group in report.left_out] == [("no-target", 1)]
    assert (report.num_repaired, report.num_left_out) == (1, 1)


def test_names_given_to_alternating_texts_are_those_of_the_config(tmp_path: Path) -> None:
    config = DataConfig(
        train=("unused",),
        first_speaker="assistant",
        speakers=SpeakersConfig(user=("ann",), assistant=("bob",)),
    )
    fixed, _ = fix_bytes(tmp_path, b'["a", "", "b", "c"]\n', config)
    assert json.loads(fixed) == [
        {"role": "bob", "content": "a"},
        {"role": "bob", "content": "b"},
        {"role": "ann", "content": "c"},
    ]


def test_train_on_decides_which_lines_are_left_out(tmp_path: Path) -> None:
    assert fix_line(tmp_path, '["Anyone?"]', train_on="all") == [["Anyone?"]]


def test_max_problems_limits_the_listed_repairs_but_not_those_counted(tmp_path: Path) -> None:
    content = b'["a", "b\xe2\x80\x8b"]\n' * 30 + b'["a"\n' * 20
    _, report = fix_bytes(tmp_path, content, max_problems=3)
    (repaired,), (left_out,) = report.repaired, report.left_out
    assert (repaired.count, [problem.line for problem in repaired.problems]) == (30, [1, 2, 3])
    assert (left_out.count, [problem.line for problem in left_out.problems]) == (20, [31, 32, 33])
    assert (repaired.code, repaired.what) == ("zero-width", REPAIRS["zero-width"])


def test_several_files_become_one(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'["a", "b"]')
    (tmp_path / "b.jsonl").write_bytes(BOM + b'["c", "d"]\r\n\r\n["e", "f"]\r\n')
    out: list[bytes] = []
    report = repair_files(
        [str(tmp_path / name) for name in ("a.jsonl", "b.jsonl")], out.append, CONFIG
    )
    assert out == [b'["a", "b"]\n', b'["c", "d"]\n', b'["e", "f"]\n']
    assert [(group.code, group.count) for group in report.repaired] == [("blank-line", 1)]


def test_a_missing_file_is_an_error_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(GOOD)
    out: list[bytes] = []
    with pytest.raises(UsageError, match="does not exist"):
        repair_files([str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")], out.append, CONFIG)
    assert out == []


def test_a_pretty_printed_value_of_stdin_cannot_be_read_twice_and_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'[\n  "Hello",\n  "Hi!"\n]\n')))
    fixed, report = fix("-")
    assert fixed == b""
    assert [group.code for group in report.left_out] == ["pretty-printed-json"]


def test_a_value_spread_over_more_than_the_limit_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convo_cli.data.repair.copies.MAX_LINE_BYTES", 20)
    fixed, report = fix_bytes(tmp_path, b'[\n  "Hello",\n  "Hi!"\n]\n')
    assert fixed == b""
    assert [group.code for group in report.left_out] == ["pretty-printed-json"]


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    with open(path, "wb") as file:
        for number in range(3000):
            file.write(
                json.dumps([f"Hello {number}", "x" * 2000 + "\u200b" * (number % 10 == 0)]).encode()
                + b"\n"
            )
    report, peak = with_peak(lambda: repair_files([str(path)], lambda line: None, CONFIG))
    assert (report.num_unchanged, report.num_repaired) == (2700, 300)
    assert peak < path.stat().st_size / 2


def test_progress_counts_the_bytes_of_the_file(tmp_path: Path) -> None:
    events: list[Event] = []
    content = b"".join(
        json.dumps([f"Hello {number}", "Hi!" * 1000]).encode() + b"\n" for number in range(800)
    )
    fix_bytes(tmp_path, content, emit=events.append)
    assert len(events) == 1 + len(content) // 2**20
    for event in events:
        assert isinstance(event, Progress)
        assert (event.total, event.unit) == (len(content), "bytes")


def test_progress_of_a_compressed_file_counts_its_bytes_on_disk(tmp_path: Path) -> None:
    events: list[Event] = []
    path = tmp_path / "data.jsonl.gz"
    lines = (json.dumps([f"Hello {number}", os.urandom(3000).hex()]) for number in range(1200))
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    repair_files([str(path)], lambda line: None, CONFIG, emit=events.append)
    size = path.stat().st_size
    assert len(events) == 1 + size // 2**20
    for event in events:
        assert isinstance(event, Progress)
        assert (event.total, event.unit) == (size, "bytes")
        assert 0 <= event.done <= size


@pytest.mark.parametrize(
    ("name", "left_out"), [("dailydialog", 0), ("casino", 0), ("hg_tods_ko", 1)]
)
def test_a_published_corpus_comes_out_as_it_is_but_for_what_is_wrong(
    name: str, left_out: int
) -> None:
    path = corpus(name) / "valid.jsonl"
    fixed, report = fix(path)
    assert report.num_left_out == left_out
    assert report.num_repaired == 0
    kept = set(fixed.splitlines())
    assert len([line for line in path.read_bytes().splitlines() if line not in kept]) == left_out
