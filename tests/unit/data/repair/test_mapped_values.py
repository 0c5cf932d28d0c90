from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from convo_cli.config.schema import ColumnsConfig, DataConfig
from convo_cli.data.repair.copies import repair_files

TURNS = {"turns": "chat", "speaker": "rol", "text": "msg.body"}


def fixed(folder: Path, value: Any, **paths: str) -> tuple[list[Any], list[str]]:
    """The written lines, and the codes of what was repaired."""
    source = folder / "a.jsonl"
    source.write_text(json.dumps(value, ensure_ascii=False) + "\n", encoding="utf-8")
    written: list[bytes] = []
    config = DataConfig(train=("unused",), columns=ColumnsConfig(**paths))
    report = repair_files([str(source)], written.append, config)
    return [json.loads(line) for line in written], [group.code for group in report.repaired]


def said(name: str, text: str, **beside: Any) -> dict[str, Any]:
    return {"rol": name, "msg": {"body": text, "contnet": "x"}, **beside}


@pytest.mark.parametrize(
    ("value", "paths", "expected", "codes"),
    [
        (
            {"chat": [said("user", "a &amp; b"), said("bot", "c"), said("bot", " ")]},
            TURNS,
            {"chat": [said("user", "a & b"), said("bot", "c")]},
            {"empty-utterance"},
        ),
        (
            {"chat": [said("user", "a"), said("bot", "b", train="false"), said("bot", "c")]},
            TURNS,
            {"chat": [said("user", "a"), said("bot", "b", train=False), said("bot", "c")]},
            {"train-value"},
        ),
        (
            {"q": "a\u200bb", "promt": "x", "a": "c"},
            {"user": "q", "assistant": "a", "system": "promt"},
            {"q": "ab", "promt": "x", "a": "c"},
            {"zero-width"},
        ),
        ({"say": ["a\u200bb", "c"]}, {"turns": "say"}, {"say": ["ab", "c"]}, {"zero-width"}),
        (
            {"log": [{"u": "a &lt; b", "s": "c"}], "messages": "unread"},
            {"turns": "log", "user": "u", "assistant": "s"},
            {"log": [{"u": "a < b", "s": "c"}], "messages": "unread"},
            {"html-entity"},
        ),
        (
            [{"rol": "user", "text": "a &amp; b"}, {"rol": "bot", "text": "c"}],
            {"speaker": "rol"},
            [{"rol": "user", "text": "a & b"}, {"rol": "bot", "text": "c"}],
            {"html-entity"},
        ),
    ],
)
def test_texts_are_repaired_and_keys_stay_as_they_are(
    tmp_path: Path, value: Any, paths: dict[str, str], expected: Any, codes: set[str]
) -> None:
    lines, repaired = fixed(tmp_path, value, **paths)
    assert lines == [expected]
    assert codes <= set(repaired)
    assert fixed(tmp_path, expected, **paths)[0] == [expected]


def test_a_line_without_a_mapped_key_is_left_out(tmp_path: Path) -> None:
    assert fixed(tmp_path, {"chat": [{"rol": "user"}]}, **TURNS) == ([], [])
