from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
import zstandard

from convo_cli.config.schema import DataConfig
from convo_cli.data.sizing import estimate
from convo_cli.data.sizing.choices import DataSize
from convo_cli.data.sizing.estimate import estimate_size


def size_of(*paths: Path, coverage: float = 1.0) -> DataSize:
    names = [str(path) for path in paths]
    return estimate_size(names, DataConfig(train=tuple(names)), coverage=coverage)


def lines(*dialogues: object) -> bytes:
    return b"".join(
        json.dumps(dialogue, ensure_ascii=False).encode() + b"\n" for dialogue in dialogues
    )


def test_a_small_file_is_measured_exactly(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(["aé", "b"], {"messages": [{"role": "user", "content": "abcd"}]}))
    assert size_of(path) == DataSize(2, 8, 5, 4, 4, is_exact=True)


def test_lines_that_hold_no_dialogue_are_not_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(["a", "b"], {"what": 1}, 5, "text") + b"{\n\n" + lines(["c", "d"]))
    assert size_of(path).num_dialogues == 2
    for content in (b"", b"\n", b"a,b\n1,2\n", b"\x1f\x8b", b"[1, 2]\n"):
        path.write_bytes(content)
        assert size_of(path).num_dialogues == 0
        assert size_of(path).longest_turn == 0


def test_rare_characters_do_not_count_beyond_the_coverage(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(["a" * 990, "bcdefghijk"]))
    assert size_of(path, coverage=1.0).num_characters == 11
    assert size_of(path, coverage=0.99).num_characters == 1


@pytest.mark.parametrize(
    ("suffix", "packed"), [("", bytes), (".gz", gzip.compress), (".zst", zstandard.compress)]
)
def test_the_number_of_dialogues_of_a_file_that_is_not_read_to_its_end_is_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, packed: Callable[[bytes], bytes]
) -> None:
    monkeypatch.setattr(estimate, "_READ_BYTES", 2**16)
    monkeypatch.setattr(estimate, "_COUNTED_BYTES", 2**20)
    random = Random(1)
    content = lines(*([f"Question {random.random():.9f}?", "Yes."] for _ in range(100_000)))
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(packed(content))
    size = size_of(path)
    assert size.num_dialogues == pytest.approx(100_000, rel=0.1)
    assert size.num_bytes == pytest.approx(100_000 * 25, rel=0.15)
    assert not size.is_exact


def test_the_sizes_of_several_files_add_up(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_bytes(lines(*[["Hi", "Hello"]] * 10))
    size = size_of(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert (size.num_dialogues, size.num_bytes, size.is_exact) == (20, 140, True)
