"""Generation marks of a chat template: ``{% generation %}`` … ``{% endgeneration %}``.

The marked tokens are the targets, even if they are more than the reply and its end token (some
templates enclose the assistant's header). Marks that leave out a part of a reply or its end token,
or that enclose another speaker's text, are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from convo_cli.data.dialogue import Turn
from convo_cli.text.bounded.rendering import refusal
from convo_cli.text.templates.pieces import Piece


def apply_marks(
    pieces: Sequence[Piece], spans: Iterable[tuple[int, int]], turns: Sequence[Turn]
) -> list[Piece]:
    """Return the pieces with the targets that the marks enclose; ``spans`` are in characters."""
    is_marked = bytearray(sum(len(piece.text) for piece in pieces))
    for start, stop in spans:
        is_marked[start:stop] = bytes([True]) * (stop - start)
    result, position = [], 0
    for piece in pieces:
        marked = is_marked[position : position + len(piece.text)]
        position += len(piece.text)
        role = turns[piece.turn].role if piece.turn >= 0 else None
        if role != "assistant":
            if any(marked):
                where = f"a {role} turn" if role else "text outside the turns"
                raise refusal(f"has generation marks in {where}")
            result.append(piece)
        elif piece.is_target_text:
            # A space before a text is part of its first word; the generation prompt ends before it.
            if not all(marked[len(piece.text) - len(piece.text.lstrip()) :]):
                what = f"the end token {piece.text}" if piece.is_special else "a part of a reply"
                raise refusal(
                    f"leaves {what} out of its generation marks, so the model would not be "
                    "trained on it"
                )
            result.append(piece)
        else:
            result += _cut(piece, marked)
    return result


def _cut(piece: Piece, marked: Sequence[int]) -> list[Piece]:
    """Cut a piece outside the assistant's words where generation marks begin and end."""
    if piece.is_special and len(set(marked)) > 1:
        raise refusal(f"has a generation mark inside the token {piece.text}")
    runs = groupby(zip(piece.text, marked, strict=True), key=lambda pair: bool(pair[1]))
    return [
        piece._replace(text="".join(character for character, _ in run), is_target_text=is_marked)
        for is_marked, run in runs
    ]
