"""Replies to the same dialogues over a run."""

from __future__ import annotations

from convo_cli.report.reading.reply_history import (
    MAX_DIALOGUES,
    MAX_STEPS,
    replies_at,
    replies_over_time,
)
from tests.written_runs import healthy, sample, scored, write_run


def test_the_same_dialogues_at_a_few_steps(tmp_path):
    run = write_run(tmp_path / "run", healthy(1000, 10))
    found = replies_over_time(run.samples, [730])
    assert len(found) == MAX_DIALOGUES
    steps = [one.step for one in found[0].replies]
    assert len(steps) <= MAX_STEPS
    assert {10, 730, 1000} <= set(steps)
    assert found[0].reference == "fine, thank you, 0"
    assert [one.reply for one in found[2].replies] == [f"reply {step} " for step in steps]


def test_equal_replies_are_shown_once(tmp_path):
    replies = {1: "I.", 2: "I's.", 3: "I's.", 4: "I's.", 5: "well"}
    events = [scored(at, 2.0, samples=(sample(0, text),)) for at, text in replies.items()]
    run = write_run(tmp_path / "run", events)
    (found,) = replies_over_time(run.samples, [])
    assert [(steps, one.reply) for steps, one in found.different] == [
        ("step 1", "I."), ("steps 2 to 4", "I's."), ("step 5", "well"),
    ]  # fmt: skip


def test_unreadable_lines_are_left_out(tmp_path):
    run = write_run(tmp_path / "run", [scored(5, 2.0, samples=(sample(0, "a"), sample(1, "b")))])
    lines = run.samples.read_bytes().splitlines(keepends=True)
    bad = b'{"step": 5, "index": 0, "reply": 7}\n\xff\n[]\n{"step": "x"}\n'
    run.samples.write_bytes(bad + b"".join(lines) + b'{"step": 6, "ind')
    assert [one.replies[0].reply for one in replies_over_time(run.samples, [])] == ["a", "b"]


def test_the_replies_of_a_step_or_of_the_last_one_before_it(tmp_path):
    run = write_run(tmp_path / "run", healthy(100, 20))
    assert {one.step for one in replies_at(run.samples, 60)} == {60}
    assert {one.step for one in replies_at(run.samples, 79)} == {60}
    assert {one.step for one in replies_at(run.samples, None)} == {100}
    assert replies_at(run.samples, 3) == replies_at(tmp_path / "none.jsonl", None) == []
