"""Notes on a reply that the user should know about."""

from __future__ import annotations

from convo_cli.model.decoding.generator import Reply
from convo_cli.wording import counted


def note_on(reply: Reply) -> str:
    """Return what is special about a reply: dropped turns, a cut; empty if nothing is."""
    notes = []
    if reply.num_dropped:
        turns = "turn" if reply.num_dropped == 1 else f"{reply.num_dropped} turns"
        notes.append(f"the model no longer sees the first {turns}")
    if not reply.stopped:
        notes.append(f"cut at {counted(len(reply.ids), 'token')}")
    return "; ".join(notes)
