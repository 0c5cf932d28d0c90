"""Shapes of turns and forms of dialogues: what a chat template writes around the texts.

Reasoning at the start of a reply is a part of the shape, because a template may keep, move or drop
it. A template cuts a text at ``</think>``, so a text is cut there too. ``<think>`` may be missing,
because some generation prompts end with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from convo_cli.data.dialogue import Role, Turn
from convo_cli.text.templates.pieces import Agreement, Piece

_OPENING, _CLOSING = "<think>", "</think>"
REASONING_TAGS = frozenset({_OPENING, _CLOSING})


class Shape(NamedTuple):
    """What decides the template's own text around a turn, besides the turns before it."""

    role: Role
    is_trained: bool = False
    """True for a reply that must begin where the agreement of the template says."""
    opening: str = ""
    closing: str = ""
    """What encloses the reasoning at the start of the text; empty if the text is whole."""
    has_thought: bool = False
    """True if there is reasoning between opening and closing."""


class Parts(NamedTuple):
    """A text that begins with reasoning; joined, the parts are the text."""

    opening: str
    """The opening tag with the white space after it, or nothing."""
    thought: str
    closing: str
    """The closing tag with the white space around it; empty without reasoning."""
    answer: str


class Slot(NamedTuple):
    """The place of a text in a form."""

    piece: int
    turn: int
    is_thought: bool


@dataclass(frozen=True, slots=True)
class Form:
    """The pieces of all dialogues with the same shapes, without their texts."""

    pieces: tuple[Piece, ...]
    slots: tuple[Slot, ...]

    def filled(self, turns: Sequence[Turn], parts: Sequence[Parts] | None = None) -> list[Piece]:
        """Return the pieces with the texts of turns, whole or in these parts."""
        pieces = list(self.pieces)
        for slot, turn, is_thought in self.slots:
            lead, index, _, is_target_text = pieces[slot]
            text = turns[turn].text
            if parts is not None:
                text = parts[turn].thought if is_thought else parts[turn].answer
            pieces[slot] = Piece(lead + text, index, False, is_target_text)
        return pieces if parts is None else _joined(pieces)


def parts_of(turns: Sequence[Turn]) -> list[Parts]:
    """Return the parts of each text; only replies have reasoning."""
    return [
        split_thought(turn.text) if turn.role == "assistant" else Parts("", "", "", turn.text)
        for turn in turns
    ]


def spoken_tokens(agreement: Agreement) -> frozenset[str]:
    """Return the tokens that a reply says itself: the tags of reasoning that is kept."""
    return frozenset({_OPENING, _CLOSING} if agreement == "prefix" else ())


def split_thought(text: str) -> Parts:
    """Return the parts of a text; all of it is the answer if it does not begin with reasoning."""
    head, tag, tail = text.partition(_CLOSING)
    if not tag:
        return Parts("", "", "", text)
    inner, answer = head.removeprefix(_OPENING), tail.lstrip()
    opening = head[: len(head) - len(inner.lstrip())] if inner != head else ""
    thought = head[len(opening) :].rstrip()
    closing = head[len(opening) + len(thought) :] + tag + tail[: len(tail) - len(answer)]
    return Parts(opening, thought, closing, answer)


def shapes_of(turns: Sequence[Turn], *, for_reply: bool) -> tuple[Shape, ...]:
    """Return the shapes of turns whose texts are whole; a prompt trains on nothing."""
    return tuple(
        [Shape(turn.role, turn.is_trained and turn.is_reply and not for_reply) for turn in turns]
    )


def with_thoughts(shapes: Sequence[Shape], parts: Sequence[Parts]) -> tuple[Shape, ...]:
    """Return the shapes of turns whose texts have these parts."""
    return tuple(
        Shape(shape.role, shape.is_trained, one.opening, one.closing, bool(one.thought))
        for shape, one in zip(shapes, parts, strict=True)
    )


def _joined(pieces: Sequence[Piece]) -> list[Piece]:
    """Join the reasoning of a reply with its answer, so that they are encoded as one text."""
    joined = list[Piece]()
    for piece in pieces:
        last = joined[-1] if joined else None
        if last and piece[1:] == last[1:] == (piece.turn, False, True):
            joined[-1] = last._replace(text=last.text + piece.text)
        else:
            joined.append(piece)
    return joined
