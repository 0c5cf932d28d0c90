"""From the export of a chat to a conversation with a model that was trained on it."""

from __future__ import annotations

import pytest

from tests.commands import run_here, settings

TALK = (
    ("Hi there", "Hello!"),
    ("How are you?", "I am fine, thanks."),
    ("What did you do today?", "I went to the lake and swam."),
    ("See you tomorrow!", "Good night!"),
)
SMALL = settings(
    "tokenizer.vocab_size=400", "model.scratch.layers=1", "model.scratch.width=32",
    "model.scratch.heads=2", "model.scratch.context=128", "dialogue.max_length=128",
    "training.max_steps=3", "training.batch_size=2", "training.warmup_steps=1",
)  # fmt: skip


@pytest.mark.slow
def test_a_chat_of_two_people_is_imported_trained_on_and_continued(tmp_path):
    lines = ["01/01/24, 09:00 - Messages and calls are end-to-end encrypted."]
    for day in range(13, 29):
        for minute, (question, answer) in enumerate(TALK):
            lines.append(f"{day}/01/24, 10:{2 * minute:02} - Ben: {question}")
            lines.append(f"{day}/01/24, 10:{2 * minute + 1:02} - Ada: {answer}")
    (tmp_path / "chat.txt").write_text("\n".join(lines), encoding="utf-8")

    def ok(*arguments, stdin=b""):
        result = run_here(tmp_path, *arguments, stdin=stdin)
        assert result.code == 0, result.err
        return result

    ok("import", "chat.txt", "--assistant", "Ada", "-o", "data.jsonl")
    assert ok("validate-data", "data.jsonl", "--json").json["files"][0]["num_dialogues"] == 16
    ok("init-config", "--train", "data.jsonl", "-o", "config.yaml", "-q")
    run = ok("train", "config.yaml", "-q", *SMALL).out.strip()
    reply = ok("chat", run, "--json", "-q", stdin=b"Hi there\n").json["messages"][-1]
    assert reply["role"] == "assistant"
