"""The decode loop: rows grow by one chosen token at a time until each has ended.

Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager

from torch import Tensor

from convo_cli.model.decoding.passes.forward import Rows
from convo_cli.model.decoding.sampling import TokenChooser


def decode(
    rows: Rows,
    logits: Tensor,
    chooser: TokenChooser,
    lengths: Sequence[int],
    stop_ids: Collection[int],
    computing: AbstractContextManager[None],
    record: Callable[[Tensor, Sequence[int]], None] | None = None,
) -> Iterator[tuple[int, int]]:
    """Yield each new token as (row, token); ``logits`` (B, V) are those of the first tokens.

    A row ends at a stop token or at its number of tokens in ``lengths``, and leaves the batch.
    ``computing`` is entered for each computation, but never while the caller's code runs. When a
    token is yielded, its row has read all tokens before it. ``record`` receives all logits (B, V)
    and the chosen tokens.
    """
    going = list(range(len(lengths)))
    left = list(lengths)
    while True:
        with computing:
            tokens = chooser.choose(logits)
            if record is not None:
                record(logits, tokens)
        places = []
        for place, (row, token) in enumerate(zip(going, tokens, strict=True)):
            yield row, token
            left[row] -= 1
            if left[row] > 0 and token not in stop_ids:
                places.append(place)
        if not places:
            return
        with computing:
            if len(places) < len(going):
                places = closed_up(places)
                rows.keep(places)
                chooser.keep(places)
                going = [going[place] for place in places]
                tokens = [tokens[place] for place in places]
            logits = rows.step(tokens)


def closed_up(places: Sequence[int]) -> list[int]:
    """Order the places so that as few rows as possible move: the last ones fill the gaps."""
    kept = set(places)
    moved = iter([place for place in reversed(places) if place >= len(places)])
    return [place if place in kept else next(moved) for place in range(len(places))]
