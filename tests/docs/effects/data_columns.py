"""Paths of what a line of data holds, and names that stay in the text."""

from __future__ import annotations

from tests.docs.effects.entry import effect
from tests.docs.effects.workshop import MAPPED, NAMED, PAIRS


@effect(
    "data.columns.turns", None, "chat.talk", seen_in="the refusal, turns in samples.jsonl",
    given=MAPPED,
)  # fmt: skip
def _(null, path):
    """The list of turns is at this path; null: under a key that convo knows."""
    assert "not a dialogue" in null.result.err
    assert path.samples[0]["history"][-1]["content"] == "Is it open?"


@effect(
    "data.columns.speaker", None, "who", seen_in="the refusal, roles in samples.jsonl",
    given=MAPPED,
)  # fmt: skip
def _(null, path):
    """The name of a turn's speaker is at this path; null: under a key that convo knows."""
    assert "whose turns have no speaker" in null.result.err
    assert path.samples[0]["history"][-1]["role"] == "user"


@effect(
    "data.columns.text", None, "body", seen_in="the refusal, references in samples.jsonl",
    given=MAPPED,
)  # fmt: skip
def _(null, path):
    """The text of a turn is at this path; null: under a key that convo knows."""
    assert "the turn has no text" in null.result.err
    assert path.samples[0]["reference"] == "Until six."


@effect("data.columns.system", None, "brief", seen_in="roles in samples.jsonl", given=MAPPED)
def _(null, path):
    """The system text is at this path of a line."""
    assert null.first_roles == {"user"}
    assert path.first_roles == {"system"}


@effect(
    "data.columns.user", None, "asked", seen_in="the refusal, turns in samples.jsonl", given=PAIRS
)
def _(null, path):
    """The user's text of a pair is at this path; null without assistant: there are no pairs."""
    assert "set both user and assistant" in null.result.err
    assert path.samples[0]["history"][-1] == {"role": "user", "content": "And now?"}


@effect(
    "data.columns.assistant", None, "told", seen_in="the refusal, references in samples.jsonl",
    given=PAIRS,
)  # fmt: skip
def _(null, path):
    """The assistant's text of a pair is at this path; null without user: there are no pairs."""
    assert "set both user and assistant" in null.result.err
    assert path.samples[0]["reference"] == "Now it is."


@effect("data.columns.history", None, "before", seen_in="turns in samples.jsonl", given=PAIRS)
def _(null, path):
    """The earlier pairs are at this path of a line; null: there are none."""
    assert [len(run.samples[0]["history"]) for run in (null, path)] == [1, 3]


@effect(
    "data.speakers.keep_names", False, True, seen_in="the refusal, turns in samples.jsonl",
    given={**NAMED, "data.speakers.assistant": ["waiter"], "data.speakers.system": ["narrator"]},
)  # fmt: skip
def _(refused, kept):
    """The text of a speaker without a role begins with the name; false: it is refused."""
    assert 'the speaker "guest" has no role' in refused.result.err
    assert kept.samples[0]["history"][1] == {
        "role": "user",
        "content": "guest: What do you have today?",
    }
