"""The note that is shown after a reply."""

from __future__ import annotations

import pytest

from convo_cli.cli.views.chatting.reply_notes import note_on
from convo_cli.model.decoding.generator import Reply


@pytest.mark.parametrize(
    ("reply", "note"),
    [
        (Reply("Hello!", (1, 2), True, 0), ""),
        (Reply("", (2,), True, 0), "the reply is empty"),
        (Reply("a", (1,), True, 4), "the model no longer sees the first 4 turns"),
        (Reply("", (3, 3), False, 0), "the reply is empty; cut at 2 tokens"),
        (Reply("Hell", (1,), False, 0), "cut at 1 token"),
    ],
)
def test_a_note_names_dropped_turns_and_empty_or_cut_replies(reply, note):
    assert note_on(reply) == note
