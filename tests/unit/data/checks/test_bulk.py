"""Parts of the bulk reader. tests/laws/test_bulk_reading.py compares it with the exact reader."""

from __future__ import annotations

import json
from typing import Any

import pytest

from convo_cli.config.schema import DataConfig
from convo_cli.data.checks import bulk
from convo_cli.data.checks.bulk import BulkReader
from convo_cli.data.checks.exact import LineRules
from convo_cli.data.checks.suspicions import LONG_UTTERANCE_BYTES
from convo_cli.data.shapes.known_keys import SPEAKER_KEYS


def structure(line: str) -> tuple[Any, list[str]]:
    strings: list[str] = []
    return bulk._take_strings(json.loads(line), strings, frozenset(SPEAKER_KEYS)), strings


def reader() -> BulkReader:
    return BulkReader(LineRules(DataConfig(train=("unused",)), "assistant"))


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        ('["a", "b"]', '["Hello", "안녕"]', True),
        ('["a", "b"]', '["a", "b", "c"]', False),
        ('["a", ["b"]]', '["a", "b"]', False),
        ('["a", "b"]', '["a", 1]', False),
        ('{"turns": ["a"]}', '{"turns": ["b"]}', True),
        ('{"turns": ["a"]}', '{"turns": []}', False),
        ('{"turns": []}', '{"turns": {}}', False),
        ('{"id": 1, "turns": ["a"]}', '{"id": -2, "turns": ["b"]}', True),
        ('{"id": 1, "turns": ["a"]}', '{"id": "1", "turns": ["b"]}', False),
        ('{"id": 1, "turns": ["a"]}', '{"turns": ["b"], "id": 1}', False),
        ('{"a1": 1, "turns": ["a"]}', '{"a2": 1, "turns": ["a"]}', False),
        ('{"a": "x", "b": 1}', '{"a": 1, "b": "x"}', False),
        ('{"a": "x", "b": ""}', '{"a": "", "b": "x"}', False),
        ('{"input": ""}', '{"input": "a"}', False),
        ('[{"role": "user", "content": "a"}]', '[{"role": "user", "content": "b"}]', True),
        ('[{"role": "user", "content": "a"}]', '[{"role": "bot", "content": "a"}]', False),
        (
            '[{"role": "user", "content": "a"}]',
            '[{"role": "user", "content": "a", "train": true}]',
            False,
        ),
        (
            '[{"role": "user", "from": "bot", "text": "a"}]',
            '[{"role": "bot", "from": "user", "text": "a"}]',
            False,
        ),
        ('[{"name": "Ann", "text": "a"}]', '[{"name": "Ben", "text": "a"}]', False),
        ('{"name": "Ann", "turns": ["a"]}', '{"name": "Ben", "turns": ["a"]}', True),
        ('[{"type": "text", "text": "a"}]', '[{"type": "b", "text": "a"}]', False),
        ('{"type": "text", "turns": ["a"]}', '{"type": "b", "turns": ["a"]}', True),
        ('[{"role": "content", "content": "a"}]', '[{"role": "a", "content": "content"}]', False),
        ('{"ok": true, "turns": ["a"]}', '{"ok": 1, "turns": ["a"]}', False),
        ('{"train": 1, "turns": ["a"]}', '{"train": 0, "turns": ["a"]}', False),
        ('{"weight": 0.5, "turns": ["a"]}', '{"weight": 1, "turns": ["a"]}', False),
        ('{"history": 0, "prompt": "a"}', '{"history": 5, "prompt": "a"}', False),
    ],
)
def test_lines_of_one_structure_are_the_same_but_for_texts_and_numbers(
    first: str, second: str, is_same: bool
) -> None:
    assert (structure(first)[0] == structure(second)[0]) == is_same


@pytest.mark.parametrize(
    "line",
    [
        '["a", "b"]',
        '{"system": "a", "turns": ["b", "c"]}',
        '{"id": ["a", {"b": "c", "role": "d"}], "x": "e"}',
        '{"a": "", "from": "user", "b": "a"}',
        '{"role": ["a"], "messages": [{"from": "b", "text": "c"}, "d"]}',
    ],
)
def test_made_up_texts_keep_the_structure_and_their_order(line: str) -> None:
    made_up: list[str] = []
    value = bulk._with_made_up(json.loads(line), made_up, frozenset(SPEAKER_KEYS))
    form, strings = structure(json.dumps(value))
    assert form == structure(line)[0]
    assert strings == made_up == [f"text \1{number}" for number in range(len(strings))]
    assert len(strings) == len(structure(line)[1])


@pytest.mark.parametrize(
    "line",
    [
        '["a", ""]', '["a", " "]', '["a", "b\\u0000"]', '["a", "b\\r"]', '["a", "b"] x',
        '["a", "b"', "5", '{"turns": ["a", "b"], "turns": ["a", "b"]}', '["a", "<think>b</think>"]',
        '{"turns": ["a", "b"], "id": 1, "id" : 2}', '["one turn"]', '["a", "b\\u200bc"]',
        '{"turns": ["a", "b"], "id": 1e999}', '["a", "NULL"]',
        '{"turns": ["a", "b"], "trian": 1}', '{"turns": ["a", "b"], "train": false}',
        json.dumps(["a", "b" * LONG_UTTERANCE_BYTES]),
    ],
)  # fmt: skip
def test_a_line_with_any_doubt_is_left_to_the_exact_reader(line: str) -> None:
    good = '["Hello", "Hi!"]'
    assert reader().read(f"{good}\n{line}\n{good}\n".encode()).dialogues == [0, 2]


def test_forms_take_a_limited_amount_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "_MAX_FORM_BYTES", 1000)
    lines = [json.dumps({"turns": ["a", "b"], f"key {number}": 1}) for number in range(100)]
    bulk_reader = reader()
    for _ in range(2):
        good = bulk_reader.read("".join(line + "\n" for line in lines).encode())
        assert 10 < len(good.dialogues) < 40
        assert sum(len(line) for line, _ in zip(lines, bulk_reader._forms, strict=False)) <= 1000


def test_blocks_do_not_depend_on_each_other() -> None:
    """So several processes can read one file."""
    blocks = [b'["Hello", "\xec\x95\x88"]\n["NULL", "b"]\n', b'{"turns": ["a", "b"]}\n["c", "d"]\n']
    together = reader()
    for block in blocks:
        alone, good = reader().read(block), together.read(block)
        assert (good.dialogues, good.fingerprints, good.num_characters) == (
            alone.dialogues,
            alone.fingerprints,
            alone.num_characters,
        )
