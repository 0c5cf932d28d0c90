"""The file of replies shows as what it is, in a terminal too."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from convo_cli.cli.views.evaluation.evaluation_view import Evaluated
from convo_cli.cli.views.evaluation.reply_samples import write_samples
from convo_cli.events import SampleReply


def test_no_unseen_character_of_a_reply_reaches_a_terminal(tmp_path):
    data, out = tmp_path / "data.jsonl", tmp_path / "replies.jsonl"
    data.touch()
    reply = "a\x9b2J\u202egnp.exe\u2028안녕"
    turn = SampleReply((("user", reply),), reply, reply, stopped=True)
    scores: Any = SimpleNamespace(replies={0: turn}, files=[SimpleNamespace(path=data)])
    write_samples(out, [Evaluated("m", tmp_path, None, scores, ())])
    text = out.read_text()
    assert not {"\x9b", "\u202e", "\u2028"} & set(text)
    assert "안녕" in text
    assert json.loads(text)["replies"] == [{"model": "m", "reply": reply, "stopped": True}]


def test_an_undecodable_path_of_a_model_does_not_lose_the_replies(tmp_path):
    turn = SampleReply((("user", "q"),), "a", "b", stopped=True)
    scores: Any = SimpleNamespace(replies={0: turn}, files=[])
    write_samples(tmp_path / "out.jsonl", [Evaluated("caf\udce9", tmp_path, None, scores, ())])
    assert json.loads((tmp_path / "out.jsonl").read_text())["replies"][0]["model"] == "caf?"
