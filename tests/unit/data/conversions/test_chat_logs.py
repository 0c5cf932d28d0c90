"""Chats are named with a command that imports them as they are, and that names a reply's author."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from convo_cli.config.schema import DataConfig
from convo_cli.data.checks.validate import validate_files
from convo_cli.data.conversions.chat_logs import is_chat_log, replying_in_log
from convo_cli.importers.importing import ImportOptions, import_source

STARTS = [
    "02/01/2024 à 10:00 - ",
    "[02/01/2024 à 10:00:00] ",
    "2.1.2024 klo 10.00 - ",
    "2. 1. 2024 10:00 - ",
    "2024. 01. 02. 10:00 - ",
    "2024년 1월 2일 오전 10:00, ",
    "[2024. 1. 2. 오전 10:00:00] ",
    "2024/1/2 上午10:00 - ",
    "٢\u200f/١\u200f/٢٠٢٤، ١٠:٠٠ ص - ",
    "10:00, 02/01/2024 - ",
    "02/01/24 10.00 - ",
    "1/2/24, 10:00\u202fAM - ",
    "2024-01-02 10 h 00 - ",
    "Jan 02 10:00:00 <",
]


@pytest.mark.parametrize("start", STARTS)
def test_a_chat_of_any_language_is_a_log(start: str) -> None:
    end = ">\t" if start.endswith("<") else ": "
    lines = [f"{start}{name}{end}Coming: yes?" for name in ("Ada", "Ada", "Ben", "Ada")]
    assert is_chat_log(lines)
    assert replying_in_log(lines) == "Ben"
    assert replying_in_log(lines[:2]) == ""


@pytest.mark.parametrize("line", ["2024-01-02 10:00,Ada,hi", "2/1/24;10:00;Ada", "1, 2, 3", "9:30"])
def test_a_table_is_no_log(line: str) -> None:
    assert not is_chat_log([line] * 3)


TELEGRAM: list[dict[str, Any]] = [
    {"type": "message", "from": "Ada", "from_id": "user1", "text": "Coming?"},
    {"type": "message", "from": "Ben", "from_id": "user2", "text": [{"text": "Yes"}, "."]},
]
CHATS: dict[str, list[dict[str, Any]]] = {
    "Telegram": [{"name": "Ada", "type": "personal_chat", "messages": TELEGRAM}],
    "Discord": [
        {
            "guild": {},
            "channel": {},
            "messages": [
                {"content": "Coming?", "author": {"name": "Ada"}},
                {"content": "Yes.", "author": {"name": "Ben"}},
            ],
        }
    ],
    "messages of Discord": [
        {"timestamp": "2024", "content": "Coming?", "author": {"name": "Ada"}},
        {"timestamp": "2024", "content": "Yes.", "author": {"name": "Ben"}},
    ],
    "messages": [
        {"timestamp": "2024-01-02T10:00:00", "sender": "Ada", "message": "Coming?"},
        {"timestamp": "2024-01-02T10:01:00", "sender": "Ada", "message": "Tonight?"},
        {"timestamp": "2024-01-02T10:01:00", "sender": "Ben", "message": "Yes."},
    ],
}


@pytest.mark.parametrize(
    ("chat", "indent"), [*((chat, None) for chat in CHATS), ("Telegram", 2), ("Discord", 2)]
)
def test_the_printed_import_of_a_chat_gives_a_dialogue(
    tmp_path: Path, chat: str, indent: int | None
) -> None:
    path = tmp_path / "chat.json"
    path.write_text("\n".join(json.dumps(value, indent=indent) for value in CHATS[chat]))
    (group,) = validate_files([str(path)], DataConfig(train=(str(path),))).files[0].problem_groups
    assert group.code == "other-format"
    assert group.hint.endswith(f"convo import {path} --assistant Ben -o out.jsonl")
    assert import_source(path, lambda _: None, ImportOptions(("Ben",))).num_dialogues == 1
