from __future__ import annotations

import gzip
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from convo_cli.config.schema import DataConfig
from convo_cli.data.dialogue import Dialogue, Turn
from convo_cli.data.problems import Problem, ProblemError
from convo_cli.data.reader import check_source, iter_blocks, iter_lines, read_dialogues
from convo_cli.errors import DataError, UsageError
from tests.memory import with_peak

GOOD = b'["Hello", "Hi!"]'
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".zst": lambda data: zstandard.ZstdCompressor().compress(data),
}


def lines_of(path: Path, **options: Any) -> tuple[list[tuple[int, bytes]], list[Problem]]:
    problems: list[Problem] = []
    return list(iter_lines(str(path), problems.append, **options)), problems


def codes_of(path: Path, content: bytes) -> list[str]:
    path.write_bytes(content)
    return [problem.code for problem in lines_of(path)[1]]


@given(
    st.lists(
        st.sampled_from([b"", b"  ", GOOD, '["é", "안녕"]'.encode()]), min_size=1, max_size=12
    ),
    st.sampled_from([b"\n", b"\r\n", b"\r\r\n"]),
    st.sampled_from([b"", b"\xef\xbb\xbf"]),
    st.booleans(),
    st.sampled_from(sorted(PACKERS)),
)
def test_line_numbers_do_not_depend_on_line_ends_or_compression(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[bytes],
    end: bytes,
    bom: bytes,
    is_ended: bool,
    suffix: str,
) -> None:
    path = tmp_path_factory.mktemp("lines") / f"data.jsonl{suffix}"
    path.write_bytes(PACKERS[suffix](bom + end.join(lines) + (end if is_ended else b"")))

    found, problems = lines_of(path)

    assert found == [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    last = max((number for number, _ in found), default=0)
    num_blank_before_the_last = sum(not line.strip() for line in lines[:last])
    assert {problem.code for problem in problems} == (
        {"empty-file"} if not last else {"blank-line"} if num_blank_before_the_last else set()
    )


def test_blank_lines_in_the_middle_are_one_warning_at_the_first(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(GOOD + b"\n\n \n" + GOOD + b"\n\n\n")
    _, (problem,) = lines_of(path)
    assert (problem.code, problem.severity, problem.line) == ("blank-line", "warning", 2)
    assert problem.message == "2 lines in a row are blank"


@pytest.mark.parametrize("suffix", sorted(PACKERS))
def test_blocks_are_whole_lines_and_count_the_bytes_read_from_disk(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"data.jsonl{suffix}"
    lines = [
        json.dumps([f"Hello {number}", os.urandom(16).hex()]).encode() for number in range(30_000)
    ]
    path.write_bytes(PACKERS[suffix](b"\r\n".join(lines)))
    blocks = list(iter_blocks(str(path)))
    assert [line for block in blocks for line in block.lines()] == lines
    assert [number for block in blocks for number in block.numbers.tolist()] == list(
        range(1, len(lines) + 1)
    )
    assert all(block.data.endswith(b"\n") and len(block.data) < 2**20 for block in blocks)
    ends = [block.end for block in blocks]
    assert len(ends) > 2
    assert ends == sorted(ends)
    assert ends[0] < ends[-1] <= path.stat().st_size
    assert ends[-1] > 0.9 * path.stat().st_size


def test_lines_before_the_damage_are_yielded_before_the_problem(
    tmp_path: Path,
) -> None:
    path = tmp_path / "data.jsonl.gz"
    packed = gzip.compress(
        b"".join(
            b'["%d", "%s"]\n' % (number, os.urandom(16).hex().encode()) for number in range(40_000)
        )
    )
    path.write_bytes(packed[: len(packed) * 3 // 4])
    problems: list[Problem] = []
    numbers = [
        number
        for block in iter_blocks(str(path), problems.append)
        for number in block.numbers.tolist()
    ]
    assert len(numbers) > 10_000
    assert [(problem.code, problem.line) for problem in problems] == [
        ("damaged-file", numbers[-1] + 1)
    ]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_several_compressed_files_joined_are_read_as_one(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"data.jsonl{suffix}"
    path.write_bytes(PACKERS[suffix](GOOD + b"\n") * 3)
    assert lines_of(path) == ([(1, GOOD), (2, GOOD), (3, GOOD)], [])


def zstd_frame(window_log: int, content: bytes) -> bytes:
    """A frame with one raw block, for whose window a decoder needs 2 ** window_log bytes."""
    header = b"\x28\xb5\x2f\xfd" + bytes([0, (window_log - 10) << 3])
    return header + (len(content) << 3 | 1).to_bytes(3, "little") + content


def test_the_skippable_frames_of_pzstd_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl.zst"
    frame = zstd_frame(20, GOOD + b"\n")
    for magic in (0x50, 0x5F):
        skipped = bytes([magic]) + b"\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"size"
        path.write_bytes((skipped + frame) * 2 + skipped)
        assert lines_of(path) == ([(1, GOOD), (2, GOOD)], [])


def test_a_window_of_128_mib_is_read_and_a_larger_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl.zst"
    path.write_bytes(zstd_frame(27, GOOD + b"\n"))
    assert lines_of(path) == ([(1, GOOD)], [])
    for window_log in (28, 31):
        path.write_bytes(zstd_frame(27, GOOD + b"\n") + zstd_frame(window_log, GOOD + b"\n"))
        lines, (problem,) = lines_of(path)
        assert (problem.code, problem.line) == ("large-window", 1 + len(lines))
        assert "--long=31" in problem.hint


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_data_that_is_cut_anywhere_is_damaged(tmp_path: Path, suffix: str) -> None:
    texts = [json.dumps([f"Hello {number}", os.urandom(8).hex()]).encode() for number in range(20)]
    packed = PACKERS[suffix](b"\n".join(texts))
    path = tmp_path / f"data.jsonl{suffix}"
    for size in range(len(packed)):
        path.write_bytes(packed[:size])
        found, problems = lines_of(path)
        assert {problem.code for problem in problems} <= {
            "damaged-file",
            "wrong-compression",
            "empty-file",
        }
        assert problems
        assert [line for _, line in found] == texts[: len(found)]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_bytes_after_compressed_data_are_damage(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"data.jsonl{suffix}"
    path.write_bytes(PACKERS[suffix](GOOD + b"\n") + b"garbage")
    assert [problem.code for problem in lines_of(path)[1]] == ["damaged-file"]


def test_a_line_over_the_limit_is_reported_and_the_next_one_read(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(
        b"x" * 16 + b"\n" + b"x" * 17 + b"\n" + GOOD + b"\n" + b"z" * 1_000_000 + b"\n" + GOOD
    )
    found, problems = lines_of(path, max_line_bytes=16)
    assert found == [(1, b"x" * 16), (3, GOOD), (5, GOOD)]
    assert [(problem.code, problem.line) for problem in problems] == [
        ("line-too-long", 2),
        ("line-too-long", 4),
    ]


def test_an_array_on_one_overlong_line_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'[{"messages": []}, ' + b" " * 100)
    (problem,) = lines_of(path, max_line_bytes=50)[1]
    guess = "it looks like one array of all dialogues"
    assert problem.message == f"the line is longer than 50 bytes; {guess}"


@pytest.mark.parametrize("suffix", sorted(PACKERS))
def test_the_limit_of_a_line_bounds_the_memory(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"data.jsonl{suffix}"
    path.write_bytes(PACKERS[suffix](b"[" + b"a" * 2**26))
    (found, problems), peak = with_peak(lambda: lines_of(path, max_line_bytes=2**20))
    assert (found, [problem.code for problem in problems]) == ([], ["line-too-long"])
    assert peak < 2**25


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty-file"),
        (b"\xef\xbb\xbf", "empty-file"),
        (b"\n\r\n  \n", "empty-file"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
            "git-lfs-pointer",
        ),
        (b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>\n", "html-page"),
        (b"<html>", "html-page"),
        (b"question,answer\nHello,Hi\n", "csv-file"),
        (b'"question","answer"\n"Hello","Hi"\n', "csv-file"),
        (b"\xef\xbb\xbfquestion\tanswer\r\nHello\tHi\r\n", "csv-file"),
        (b"question;answer\nHello;Hi", "csv-file"),
        (json.dumps([["Hello", "Hi!"], ["Bye", "Bye!"]], indent=2).encode(), "pretty-printed-json"),
        (json.dumps({"turns": ["Hello", "Hi!"]}, indent="\t").encode(), "pretty-printed-json"),
        (b'[\n["Hello", "Hi!"],\n["Bye", "Bye!"]\n]\n', "pretty-printed-json"),
        (b'[["Hello", "Hi!"],\n["Bye", "Bye!"],\n["A", "B"]]\n', "pretty-printed-json"),
        (GOOD.decode().encode("utf-16"), "utf-16"),
        (GOOD.decode().encode("utf-16-le"), "utf-16"),
        (GOOD.decode().encode("utf-16-be"), "utf-16"),
        (GOOD.decode().encode("utf-32"), "utf-32"),
        (GOOD.decode().encode("utf-32-be"), "utf-32"),
        (bytes(4096), "damaged-file"),
        (b"PAR1\x15\x04", "binary-file"),
        (b"PK\x03\x04\x14", "binary-file"),
        (gzip.compress(GOOD, mtime=0), "wrong-compression"),
        (zstandard.ZstdCompressor().compress(GOOD), "wrong-compression"),
    ],
)
def test_a_file_that_is_not_json_lines_is_recognised(
    tmp_path: Path, content: bytes, code: str
) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(content)
    found, (problem,) = lines_of(path)
    assert found == []
    assert (problem.code, problem.file, problem.line, problem.column) == (code, str(path), 1, 1)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_the_name_of_a_compressed_file_must_match_its_content(tmp_path: Path, suffix: str) -> None:
    assert codes_of(tmp_path / f"data.jsonl{suffix}", GOOD) == ["wrong-compression"]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_the_content_of_a_compressed_file_is_recognised_too(tmp_path: Path, suffix: str) -> None:
    assert codes_of(tmp_path / f"table.csv{suffix}", PACKERS[suffix](b"question,answer")) == [
        "csv-file"
    ]


@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        b'Hello, there\n["Hello", "Hi!"]\n',
        b'["Hello", "Hi!"\n["Bye", "Bye!"]\n',
        b'{"turns": ["Hello",\n{"turns": ["Bye", "Bye!"]}\n',
        b'"Hello"\n["Hello", "Hi!"]\n',
    ],
)
def test_json_lines_with_a_broken_line_are_still_json_lines(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(content)
    assert lines_of(path) == ([*enumerate(content.splitlines(), 1)], [])


def test_json_lines_named_csv_are_read(tmp_path: Path) -> None:
    assert codes_of(tmp_path / "data.csv", GOOD) == []


def test_a_missing_file_is_a_usage_error_that_suggests_a_similar_name(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(GOOD)
    with pytest.raises(UsageError, match=r"trian\.jsonl does not exist") as caught:
        check_source(str(tmp_path / "trian.jsonl"))
    assert caught.value.hint == f"did you mean {tmp_path / 'train.jsonl'}?"


@pytest.mark.parametrize("name", ["nowhere/train.jsonl", "file/train.jsonl"])
def test_a_missing_folder_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(GOOD)
    with pytest.raises(UsageError, match="does not exist") as caught:
        list(iter_lines(str(tmp_path / name)))
    assert caught.value.hint == f"the folder {(tmp_path / name).parent} does not exist"


def test_a_directory_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a directory"):
        list(iter_lines(str(tmp_path)))


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every file"
)
def test_a_file_without_read_permission_is_a_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(GOOD)
    path.chmod(0)
    with pytest.raises(UsageError, match="permission denied"):
        list(iter_lines(str(path)))


def test_an_impossible_file_name_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        check_source("a\0b")


def test_stdin_is_read_and_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(GOOD + b"\n" + GOOD))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert list(iter_lines("-")) == [(1, GOOD), (2, GOOD)]
    assert not stdin.buffer.closed


def test_training_reads_every_dialogue_of_every_file_in_order(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    first.write_bytes(b'["1", "2"]\n\n["3", "4"]\n')
    second.write_bytes(b'{"messages": [{"role": "user", "content": "5"}]}\n')
    assert list(read_dialogues([str(first), str(second)], DataConfig(train=("unused",)))) == [
        Dialogue((Turn("user", "1"), Turn("assistant", "2")), line=1),
        Dialogue((Turn("user", "3"), Turn("assistant", "4")), line=3),
        Dialogue((Turn("user", "5"),), line=1),
    ]


@pytest.mark.parametrize(
    ("line", "place"),
    [
        (b'["a", NaN]', "3:7 $[1] NaN is not valid JSON"),
        (b'["a", ""]', "3:7 $[1] the text is empty"),
    ],
)
def test_training_stops_at_the_first_problem_and_says_where(
    tmp_path: Path, line: bytes, place: str
) -> None:
    path = tmp_path / "my data.jsonl"
    path.write_bytes(GOOD + b"\n" + GOOD + b"\n" + line + b"\n")
    dialogues = read_dialogues([str(path)], DataConfig(train=("unused",)))
    assert next(dialogues).line == 1
    assert next(dialogues).line == 2
    with pytest.raises(DataError) as caught:
        next(dialogues)
    assert caught.value.message == f"{path}:{place}"
    assert f"convo validate-data '{path}'" in (caught.value.hint or "")


def test_training_refuses_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"")
    with pytest.raises(ProblemError) as caught:
        list(read_dialogues([str(path)], DataConfig(train=("unused",))))
    assert caught.value.problem.code == "empty-file"
