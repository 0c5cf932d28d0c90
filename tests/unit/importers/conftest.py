"""Imports texts as files, in this process."""

from __future__ import annotations

import json

import pytest

from convo_cli.importers.importing import ImportOptions, import_source


@pytest.fixture
def imported(tmp_path):
    """Import bytes, a text or the files of a folder; return the dialogues and the report."""

    def run(content, assistant="Ada", name="chat.txt", **options):
        path = tmp_path / name
        if isinstance(content, dict):
            for inner, text in content.items():
                (path / inner).parent.mkdir(parents=True, exist_ok=True)
                (path / inner).write_text(text, encoding="utf-8")
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        lines: list[bytes] = []
        names = (assistant,) if isinstance(assistant, str) else assistant
        report = import_source(path, lines.append, ImportOptions(names, **options))
        dialogues = [
            [(turn["role"], turn["content"]) for turn in json.loads(line)["messages"]]
            for line in lines
        ]
        return dialogues, report

    return run
