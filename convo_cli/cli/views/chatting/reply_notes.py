"""The note that is shown after a reply."""

from __future__ import annotations

from convo_cli.model.decoding.generator import Reply
from convo_cli.wording import counted


def note_on(reply: Reply) -> str:
    """Return a note on dropped turns and on an empty or cut reply; empty if there is none."""
    notes = []
    if reply.num_dropped:
        turns = "turn" if reply.num_dropped == 1 else f"{reply.num_dropped} turns"
        notes.append(f"the model no longer sees the first {turns}")
    if not reply.text.strip():
        notes.append("the reply is empty")
    if not reply.stopped:
        notes.append(f"cut at {counted(len(reply.ids), 'token')}")
    return "; ".join(notes)
