from __future__ import annotations

import gzip
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convo_cli.config.schema import ColumnsConfig, DataConfig, TrainOn
from convo_cli.data.checks.report import DataReport, FileReport, spread
from convo_cli.data.checks.validate import validate_files
from convo_cli.data.conversions.commands import as_hint
from convo_cli.data.problem_kinds import KINDS
from convo_cli.data.problems import ProblemError
from convo_cli.data.reader import MAX_LINE_BYTES, read_dialogues
from convo_cli.errors import UsageError
from convo_cli.events import Event, Progress
from tests.conftest import CORPORA

CONFIG = DataConfig(train=("unused",))
GOOD = b'["Hello", "Hi!"]\n'


def check(folder: Path, *contents: bytes | list[Any], **options: Any) -> DataReport:
    """The report on files a.jsonl, b.jsonl and so on; a list is written as one value per line."""
    paths = []
    for name, content in zip("abcdef", contents, strict=False):
        path = folder / f"{name}.jsonl"
        path.write_bytes(content if isinstance(content, bytes) else as_lines(content))
        paths.append(str(path))
    return validate_files(paths, options.pop("config", CONFIG), **options)


def as_lines(values: list[Any]) -> bytes:
    return b"".join(json.dumps(value, ensure_ascii=False).encode() + b"\n" for value in values)


def check_one(folder: Path, content: bytes | list[Any], **options: Any) -> FileReport:
    (file,) = check(folder, content, **options).files
    return file


def codes(file: FileReport) -> dict[str, int]:
    return {group.code: group.count for group in file.problem_groups}


EXAMPLES: dict[str, bytes | list[Any]] = {
    "empty-file": b"\n",
    "git-lfs-pointer": b"version https://git-lfs.github.com/spec/v1\n",
    "html-page": b"<!doctype html>",
    "plain-text": b"Hello, you.\nHi!\n",
    "csv-file": b"question,answer\nHi,Hello\n",
    "pretty-printed-json": b'[\n  "Hi"\n]\n',
    "utf-16": '["Hi"]'.encode("utf-16"),
    "utf-32": '["Hi"]'.encode("utf-32"),
    "binary-file": b"PAR1",
    "wrong-compression": gzip.compress(GOOD),
    "damaged-file": bytes(100),
    "line-too-long": b"[" + b" " * MAX_LINE_BYTES,
    "stray-bom": GOOD + b"\xef\xbb\xbf" + GOOD,
    "not-utf8": b'["caf\xe9"]',
    "invalid-json": b'["a",]',
    "truncated-json": b'["a"',
    "extra-data": b'["a"] ["b"]',
    "not-a-number": b'["a", NaN]',
    "number-too-large": b'["a", 1e999]',
    "duplicate-key": b'{"turns": ["a"], "turns": ["b"]}',
    "lone-surrogate": b'["\\ud800"]',
    "nul-character": b'["\\u0000"]',
    "control-character": b'["\\u001b"]',
    "nesting-too-deep": b"[" * 100 + b"]" * 100,
    "unknown-shape": [{"text": "Hi"}],
    "missing-column": [{"text": "Hi"}],
    "other-format": [{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "c"}],
    "array-of-dialogues": [[["a", "b", "c"], ["c", "d"]]],
    "empty-dialogue": [[]],
    "not-a-turn": [["a", 4]],
    "mixed-turns": [["a", {"role": "user", "content": "b"}]],
    "missing-key": [[{"role": "user"}]],
    "part-not-text": [[{"role": "user", "content": [{"type": "image_url"}]}]],
    "text-not-string": [{"prompt": 3, "completion": "b"}],
    "empty-utterance": [["a", " "]],
    "unknown-speaker": [[{"role": "narrator", "content": "a"}]],
    "system-not-first": [[{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]],
    "train-value": [[{"role": "user", "content": "a", "weight": 0.5}]],
    "train-key": [[{"role": "user", "content": "a", "mask": 0}]],
    "tool-call": [["a", "b"], [{"role": "tool", "content": "4 C"}]],
    "train-conflict": [[{"role": "user", "content": "a", "weight": 1, "train": False}]],
    "history": [{"instruction": "a", "output": "b", "history": [["c"]]}],
    "reasoning": [["a", "<think>b</think>c"]],
    "reasoning-tags": [["a", "<think>b"]],
    "unread-text": [{"turns": ["a", "b"], "note": "This note would be lost without a word."}],
    "nothing-to-train": [["a"]],
    "references": [{"prompt": "a", "completion": "b", "references": ["c", "b"]}],
    "carriage-return": [["a\r\nb", "c\rd"]],
    "html-markup": [["a", '<div class="markdown prose w-full"><p>b</p></div>']],
    "chat-log": b"[12:00] <ada> Hi\n[12:01] <ben> Hello\n",
    "blank-line": GOOD + b"\n" + b'["a", "b"]\n',
    "misspelt-key": [{"turns": ["a", "b"], "systm": "c"}],
    "duplicate": [["a", "b"], ["A ", "b"]],
    "one-turn": [["a"]],
    "no-target": [["a"], ["a", "b"]],
    "null-text": [["a", "NULL"]],
    "zero-width": [["a", "b\u200bc"]],
    "subword-mark": [["a", "\u2581b"]],
    "repeated-turn": [["a", "b" * 40, "b" * 40]],
    "label-row": [["0 0 0 4"]],
    "speaker-prefix": [["a", "Assistant: b"]],
    "encoded-value": [["a", "b'b'"]],
    "html-entity": [["a", "b &amp; c"]],
    "escape-sequence": [["a", "b\\n\\nc"]],
    "special-token": [["a", "b<|endoftext|>"]],
    "bidi-override": [["a", "b\u202ec"]],
    "replacement-character": [["a", "b\ufffdc"]],
    "private-use": [["a", "b\ue000c"]],
    "stray-control": [["a", "b\x7f"]],
    "mojibake": [["a", "cafÃ©"]],
    "long-utterance": [["a", "b" * 100_001]],
    "long-dialogue": [["a"] * 1_001],
}


CONFIGS = {"missing-column": CONFIG.model_copy(update={"columns": ColumnsConfig(turns="talk")})}
"""Configs other than the default with which the kind is found."""
OF_THE_PRE_FLIGHT = {"end-not-trained", "not-renderable", "tools-not-rendered", "turn-too-long"}
"""Found only with a tokenizer."""
WHERE_REASONING_IS_KEPT = {"reasoning-place", "reasoning-twice"}
OF_PACKED_FILES = {"large-window"}
SHOWN_HERE = KINDS.keys() - OF_THE_PRE_FLIGHT - WHERE_REASONING_IS_KEPT - OF_PACKED_FILES


@pytest.mark.parametrize("code", sorted(SHOWN_HERE))
def test_every_kind_of_problem_is_found_and_fails_the_data_only_if_it_is_an_error(
    tmp_path: Path, code: str
) -> None:
    contents = (GOOD, GOOD) if code == "leakage" else (EXAMPLES[code],)
    report = check(tmp_path, *contents, config=CONFIGS.get(code, CONFIG))
    group = next(group for group in report.files[-1].problem_groups if group.code == code)
    assert group.severity == KINDS[code].severity
    if group.problems[0].advice:
        assert group.problems[0].hint == group.hint != KINDS[code].hint
    else:
        assert group.hint == as_hint(KINDS[code].hint, group.problems[0].file)
    assert all(problem.file and problem.line and problem.column for problem in group.problems)
    has_errors = any(
        group.severity == "error" for file in report.files for group in file.problem_groups
    )
    assert report.is_trainable == (not has_errors)
    assert has_errors or KINDS[code].severity == "warning"


@pytest.mark.parametrize("code", sorted(EXAMPLES))
def test_training_refuses_a_file_exactly_where_a_line_or_the_file_has_an_error(
    tmp_path: Path, code: str
) -> None:
    config = CONFIGS.get(code, CONFIG)
    report = check(tmp_path, EXAMPLES[code], config=config)
    errors = {group.code for group in report.files[0].problem_groups if group.severity == "error"}
    refused = []
    try:
        list(read_dialogues([report.files[0].file], config))
    except ProblemError as error:
        refused = [error.problem.code]
    assert set(refused) <= errors
    assert refused or errors <= {"nothing-to-train", "no-target"}


def test_train_on_decides_whether_a_dialogue_has_a_target(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    assistant_then_untrained = (
        '[{"role": "assistant", "content": "a"}, {"role": "assistant", '
        '"content": "b", "train": false}]'
    )
    path.write_text(f'["a", "b"]\n["only the user"]\n{assistant_then_untrained}\n')
    expected: dict[TrainOn, list[int]] = {"assistant": [2], "all": [], "last": [2, 3]}
    for train_on, lines in expected.items():
        (file,) = validate_files([str(path)], CONFIG, train_on=train_on).files
        groups = [group for group in file.problem_groups if group.code == "no-target"]
        assert [problem.line for group in groups for problem in group.problems] == lines


def test_a_good_file_has_no_problem_and_is_trainable(tmp_path: Path) -> None:
    report = check(tmp_path, GOOD)
    assert report.is_trainable
    assert report.files[0].problem_groups == ()
    assert (report.num_errors, report.num_warnings, report.leaks) == (0, 0, ())


def test_the_report_counts_what_is_in_the_file(tmp_path: Path) -> None:
    file = check_one(
        tmp_path,
        [
            ["one", "two", "three"],
            {
                "id": 1,
                "messages": [
                    {"role": "user", "content": "Hi"},
                    {"role": "user", "content": "there"},
                ],
            },
            {
                "id": 2,
                "conversations": [
                    {"from": "gpt", "value": "안녕"},
                    {"from": "gpt", "value": "네", "train": False},
                ],
                "system": "친절",
            },
            ["a", ""],
        ],
    )
    assert (file.num_lines, file.num_dialogues, file.num_turns) == (4, 3, 8)
    assert file.num_turns_by_role == {"system": 1, "user": 4, "assistant": 3}
    assert file.num_untrained_turns == 1
    assert file.num_characters == len("onetwothreeHithere안녕네친절")
    assert file.shapes == {"list of texts": 1, "messages": 1, "conversations": 1}
    assert file.unread_keys == {"id": 2}
    assert file.num_ending_on_user == 2
    assert file.num_with_same_role_in_a_row == 2
    assert file.num_without_assistant == 1
    assert file.num_one_turn == 0
    assert codes(file) == {"empty-utterance": 1, "no-target": 1}
    assert file.scripts == {"Latin": pytest.approx(18 / 23), "Hangul": pytest.approx(5 / 23)}
    assert file.turns_per_dialogue is not None
    assert (file.turns_per_dialogue.min, file.turns_per_dialogue.max) == (2, 3)


@given(st.lists(st.integers(1, 5000), min_size=1))
def test_a_spread_is_that_of_the_values_and_its_buckets_hold_each_of_them(
    values: list[int],
) -> None:
    result = spread({value: values.count(value) for value in values})
    assert result is not None
    assert (result.min, result.max) == (min(values), max(values))
    assert result.median == statistics.median(values)
    assert result.mean == pytest.approx(statistics.fmean(values))
    for bucket in result.histogram:
        assert bucket.count == sum(bucket.low <= value <= bucket.high for value in values)
    assert sum(bucket.count for bucket in result.histogram) == len(values)
    pairs = zip(result.histogram, result.histogram[1:], strict=False)
    assert all(bucket.high + 1 == after.low for bucket, after in pairs)


def test_there_is_no_spread_without_a_value() -> None:
    assert spread({}) is None


@pytest.mark.parametrize(
    ("text", "scripts"),
    [
        ("Hello, 123!", ["Latin"]),
        ("Straße naïve", ["Latin"]),
        ("안녕하세요", ["Hangul"]),
        ("ひらがなカタカナｶﾅ", ["Kana"]),
        ("漢字", ["Han"]),
        ("Привет", ["Cyrillic"]),
        ("שלום", ["Hebrew"]),
        ("ＦＵＬＬ", ["Latin"]),
        ("日本語のテキスト", ["Kana", "Han"]),
        ("123 …", []),
    ],
)
def test_letters_are_counted_by_script(tmp_path: Path, text: str, scripts: list[str]) -> None:
    assert list(check_one(tmp_path, [[text, text]]).scripts) == scripts


def test_signs_are_not_letters(tmp_path: Path) -> None:
    assert check_one(tmp_path, [["{ [ | ~ @ ` ^ 1 안녕", "네!"]]).scripts == {"Hangul": 1}


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        (["Hello there", "Hi"], ["HELLO  there ", "hi"], True),
        (["Ｈｅｌｌｏ", "Hi"], ["Hello", "Hi"], True),
        (["Straße", "Hi"], ["STRASSE", "Hi"], True),
        (["e\u0301", "Hi"], ["\u00e9", "Hi"], True),
        (["Hello there", "Hi"], ["Hello", "there Hi"], False),
        (["Hello", "Hi"], ["Hello", "Hi", "Hi"], False),
        (
            ["Hello", "Hi"],
            [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}],
            True,
        ),
    ],
)
def test_duplicates_may_differ_in_case_width_and_white_space(
    tmp_path: Path, first: list[Any], second: list[Any], is_same: bool
) -> None:
    assert check_one(tmp_path, [first, second]).num_duplicates == is_same
    assert len(check(tmp_path, [first], [second]).leaks) == is_same


@given(st.lists(st.lists(st.sampled_from(["a", "b"]), min_size=2, max_size=3), max_size=20))
def test_every_repeated_dialogue_is_a_duplicate_of_the_first(
    tmp_path_factory: pytest.TempPathFactory, dialogues: list[list[str]]
) -> None:
    file = check_one(tmp_path_factory.mktemp("data"), [*dialogues, ["z", "y"]], max_problems=100)
    expected = {
        line: f"the dialogue repeats line {dialogues.index(dialogue) + 1}"
        for line, dialogue in enumerate(dialogues, 1)
        if dialogue in dialogues[: line - 1]
    }
    found = [
        problem
        for group in file.problem_groups
        if group.code == "duplicate"
        for problem in group.problems
    ]
    assert {problem.line: problem.message for problem in found} == expected
    assert file.num_duplicates == len(expected)


def test_leakage_is_counted_for_every_pair_of_files_with_their_lines(tmp_path: Path) -> None:
    report = check(
        tmp_path,
        [["a", "b"], ["c", "d"], ["e", "f"]],
        [["x", "y"], ["E", "F"], ["c", "d"], ["c", "d"]],
        [["x", "y"]],
    )
    a, b, c = (file.file for file in report.files)
    assert [
        (leak.earlier_file, leak.file, leak.num_dialogues, leak.examples) for leak in report.leaks
    ] == [
        (a, b, 3, ((3, 2), (2, 3), (2, 4))),
        (b, c, 1, ((1, 1),)),
    ]
    assert codes(report.files[1]) == {"duplicate": 1, "leakage": 3}
    assert report.is_trainable


@pytest.mark.parametrize("max_problems", [0, 1, 5, 8, 100])
def test_max_problems_limits_the_problems_listed_but_not_those_counted(
    tmp_path: Path, max_problems: int
) -> None:
    (group,) = check_one(tmp_path, [[1]] * 12, max_problems=max_problems).problem_groups
    assert group.count == 12
    assert [problem.line for problem in group.problems] == list(range(1, 13))[:max_problems]


def test_a_byte_order_mark_is_stray_at_the_beginning_of_a_block_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convo_cli.data.blocks.BUFFER_BYTES", len(GOOD))
    file = check_one(tmp_path, GOOD * 3 + b"\xef\xbb\xbf" + GOOD)
    assert codes(file) == {"stray-bom": 1, "duplicate": 2}


def test_faults_of_json_and_of_meaning_have_a_column(tmp_path: Path) -> None:
    file = check_one(
        tmp_path,
        '["é", "Ok", ""]\n{"messages": [{"role": "é", "content": "a"}], "x": NaN}\n'.encode(),
    )
    places = {
        group.code: (problem.line, problem.column, problem.path)
        for group in file.problem_groups
        for problem in group.problems
    }
    assert places == {"empty-utterance": (1, 13, "$[2]"), "not-a-number": (2, 52, "$.x")}


def test_errors_come_before_warnings(tmp_path: Path) -> None:
    file = check_one(tmp_path, [["one", "NULL"], ["a", "b\u200bc"], ["a", ""]])
    assert [group.severity for group in file.problem_groups] == ["error", "warning", "warning"]


def test_many_unread_keys_do_not_fill_the_memory(tmp_path: Path) -> None:
    file = check_one(
        tmp_path,
        [{"turns": ["a", str(number)], f"key {number}": "x" * 99} for number in range(500)],
    )
    assert len(file.unread_keys) == 101
    assert codes(file) == {"unread-text": 101}
    (name,) = check_one(tmp_path, [{"turns": ["a", "b"], "k" * 10_000: 1}]).unread_keys
    assert len(name) < 100
    assert sum(file.unread_keys.values()) == 500


@pytest.mark.parametrize("key", ["message", "Messages", "systm", "promt"])
def test_a_key_that_looks_misspelt_is_a_warning_with_the_right_one(
    tmp_path: Path, key: str
) -> None:
    (group,) = check_one(tmp_path, [{"turns": ["a", "b"], key: "c"}]).problem_groups
    assert (group.code, group.problems[0].path) == ("misspelt-key", f"$.{key}")


@pytest.mark.parametrize(
    "key", ["id", "source", "prompt_id", "conversation_hash", "lang", "messages_meta_data_of_it"]
)
def test_metadata_is_not_taken_for_a_misspelt_key(tmp_path: Path, key: str) -> None:
    assert check_one(tmp_path, [{"turns": ["a", "b"], key: "c"}]).problem_groups == ()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("None", "null-text"),
        ("nan", "null-text"),
        ("a\ufeffb", "zero-width"),
        ("a\u200db", "zero-width"),
        ("\u2581Hello\u2581there", "subword-mark"),
        ("itâ€™s", "mojibake"),
        ("ðŸ˜€", "mojibake"),
        ("안녕".encode().decode("cp1252", "ignore"), "mojibake"),
        (
            "日本語".encode()
            .decode("latin-1")
            .replace("\x97", "—")
            .replace("\x9c", "œ")
            .replace("\x9e", "ž"),
            "mojibake",
        ),
    ],
)
def test_suspicious_text_is_a_warning(tmp_path: Path, text: str, code: str) -> None:
    assert code in codes(check_one(tmp_path, [["Hello", text]]))


@pytest.mark.parametrize(
    "text",
    [
        "None of them.",
        "👨\u200d👩\u200d👧 and 🏳️\u200d🌈",
        "می\u200cخواهم",
        "क्\u200dष",
        "« Café à côté… » dit-il, “NÃO”, MANHÃ…",
        "voilà…”",
        "Tschüß, Ångström, Škoda",
        "안녕하세요 日本語 Привет",
        "b" * 100_000,
    ],
)
def test_honest_text_is_no_warning(tmp_path: Path, text: str) -> None:
    assert codes(check_one(tmp_path, [["Hello", text]])) == {}


def test_a_long_utterance_is_measured_in_bytes(tmp_path: Path) -> None:
    assert codes(check_one(tmp_path, [["a", "가" * 33_333]])) == {}
    assert codes(check_one(tmp_path, [["a", "가" * 33_334]])) == {"long-utterance": 1}


def test_a_system_turn_does_not_make_a_dialogue_of_one_turn_two(tmp_path: Path) -> None:
    file = check_one(
        tmp_path, [{"system": "Be kind", "messages": [{"role": "assistant", "content": "Hi"}]}]
    )
    assert (codes(file), file.num_one_turn) == ({"one-turn": 1}, 1)


@pytest.mark.parametrize(
    "value",
    [
        ["a"],
        [{"role": "assistant", "content": "a", "train": False}],
        [{"role": "system", "content": "a"}],
    ],
)
def test_a_file_without_a_trained_assistant_turn_is_not_trainable(
    tmp_path: Path, value: Any
) -> None:
    report = check(tmp_path, GOOD, [value])
    assert not report.is_trainable
    assert codes(report.files[1])["nothing-to-train"] == 1


def test_a_missing_file_is_reported_before_any_file_is_read(tmp_path: Path) -> None:
    events: list[Event] = []
    (tmp_path / "a.jsonl").write_bytes(GOOD * 200_000)
    with pytest.raises(UsageError, match="does not exist"):
        validate_files(
            [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")], CONFIG, emit=events.append
        )
    assert events == []


def test_a_file_that_disappears_while_another_is_read_is_a_usage_error(tmp_path: Path) -> None:
    second = tmp_path / "b.jsonl"
    with pytest.raises(UsageError, match=r"b\.jsonl does not exist"):
        check(tmp_path, GOOD * 70_000, GOOD, emit=lambda event: second.unlink(missing_ok=True))


def test_progress_counts_the_bytes_of_the_file(tmp_path: Path) -> None:
    events: list[Event] = []
    content = as_lines([[f"Hello {number}", "Hi!" * 1000] for number in range(1200)])
    check(tmp_path, content, emit=events.append)
    assert len(events) == 1 + len(content) // 2**20
    done = []
    for event in events:
        assert isinstance(event, Progress)
        assert event.total == len(content)
        done.append(event.done)
    assert done == sorted(done)
    assert done[-1] <= len(content)


def test_progress_of_a_packed_file_is_that_of_the_file_on_disk(tmp_path: Path) -> None:
    events: list[Event] = []
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(
        gzip.compress(
            as_lines([[f"Hello {number}", os.urandom(3000).hex()] for number in range(1200)])
        )
    )
    validate_files([str(path)], CONFIG, emit=events.append)
    size = path.stat().st_size
    assert len(events) == 1 + size // 2**20
    for event in events:
        assert isinstance(event, Progress)
        assert (event.total, event.unit) == (size, "bytes")
        assert 0 <= event.done <= size


PEAK = """
import re, sys
from convo_cli.config.schema import ColumnsConfig, DataConfig, TrainOn
from convo_cli.data.checks.validate import validate_files
(file,) = validate_files(sys.argv[1:], DataConfig(train=("unused",))).files
print(file.num_dialogues, *(group.code for group in file.problem_groups))
# ru_maxrss would include the peak of the process that started this one.
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the peak")
@pytest.mark.parametrize(
    ("line_bytes", "num_lines", "limit"),
    [
        pytest.param(150_000_000, 1_000, 350, id="a line of 150 MB"),
        pytest.param(1_000_000_000, 1_000, 350, id="a line of 1 GB", marks=pytest.mark.slow),
        pytest.param(10, 3_000_000, 500, id="a file of 2 GB", marks=pytest.mark.slow),
    ],
)
def test_the_memory_is_bounded(tmp_path: Path, line_bytes: int, num_lines: int, limit: int) -> None:
    path = tmp_path / "data.jsonl"
    with path.open("wb") as file:
        file.write(b'["')
        for _ in range(line_bytes // 10**6):
            file.write(b"x" * 10**6)
        file.write(b'", "b"]\n')
        reply = "What do you want from me? " * 25
        for number in range(num_lines):
            file.write(f'["Hello {number}", "{reply}{number}"]\n'.encode())
    run = subprocess.run(
        [sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True
    )
    path.unlink()
    found, peak = run.stdout.splitlines()
    assert found == f"{num_lines} {'line-too-long' if line_bytes > 10 else 'empty-utterance'}"
    assert int(peak) < limit


@given(st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line), max_size=10))
def test_any_file_gives_a_report(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    file = check_one(tmp_path_factory.mktemp("data"), b"\n".join(lines))
    assert file.num_dialogues <= file.num_lines <= len(lines)
    assert file.num_dialogues or file.num_errors


@pytest.mark.skipif(not CORPORA.is_dir(), reason="the corpora are not in ../shared/data")
@pytest.mark.parametrize("corpus", ["dailydialog", "casino", "hg_tods_ko"])
def test_a_published_corpus_is_trainable_with_the_counts_of_its_source(corpus: str) -> None:
    splits = json.loads((CORPORA / corpus / "SOURCE.json").read_text())["splits"]
    report = validate_files([str(CORPORA / corpus / f"{split}.jsonl") for split in splits], CONFIG)
    errors = [
        str(p)
        for file in report.files
        for group in file.problem_groups
        for p in group.problems
        if group.severity == "error"
    ]
    if corpus == "hg_tods_ko":  # one of its dialogues is a single turn of the user
        assert [error.split("/")[-1] for error in errors] == [
            "valid.jsonl:12:1 $ the dialogue has no turn to train on (train_on: assistant)"
        ]
    else:
        assert report.is_trainable, errors
    for file, expected in zip(report.files, splits.values(), strict=True):
        assert (file.num_dialogues, file.num_turns, file.num_characters) == (
            expected["dialogues"],
            expected["utterances"],
            expected["chars"],
        )
        assert file.turns_per_dialogue is not None
        assert (file.turns_per_dialogue.min, file.turns_per_dialogue.max) == (
            expected["min"],
            expected["max"],
        )
        assert file.num_duplicates >= expected["exact_dups"]


@pytest.mark.skipif(not CORPORA.is_dir(), reason="the corpora are not in ../shared/data")
def test_the_known_leak_of_dailydialog_is_found_and_its_cure_confirmed() -> None:
    folder = CORPORA / "dailydialog"
    paths = [str(folder / name) for name in ("train.jsonl", "test.jsonl", "test_noleak.jsonl")]
    leaks = {
        (Path(leak.earlier_file).name, Path(leak.file).name)
        for leak in validate_files(paths, CONFIG).leaks
    }
    assert ("train.jsonl", "test.jsonl") in leaks
    assert ("train.jsonl", "test_noleak.jsonl") not in leaks


def test_texts_with_white_space_at_an_end_are_counted(tmp_path: Path) -> None:
    lines = [
        ["Hello ", "\n\u3000Hi!\r\n", "Bye."],
        {"instruction": " Go ", "input": " ", "output": "Gone.", "note": " n "},
        {"instruction": "Go", "input": "on ", "output": "Gone."},
        {"prompt": "a", "completion": "b ", "train": False},
    ]
    (file,) = check(tmp_path, lines).files
    assert file.num_stripped_texts == 4
