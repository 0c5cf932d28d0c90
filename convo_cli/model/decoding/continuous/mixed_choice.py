"""Choice of the next tokens of rows with different settings and seeds.

Rows with equal settings form a group with one `TokenChooser`, so that most of the work is done for
all rows of a group at once. The choice of each row depends only on its own logits and randomness.

Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

from torch import Tensor

from convo_cli.config.schema import GenerationSettings
from convo_cli.model.decoding.sampling import TokenChooser, is_sampling, reply_randomness

_Key: TypeAlias = tuple[float, ...]


class RowChoice:
    """Settings and randomness of one row, from which its chooser can be rebuilt at any token."""

    def __init__(self, settings: GenerationSettings, seed: int) -> None:
        self.settings = settings
        self.randomness: Random = reply_randomness(seed, 0)
        sampling = settings.temperature, settings.top_k, settings.top_p, settings.min_p
        self.is_sampling = is_sampling(settings)
        self.key: _Key = (settings.repetition_penalty, *(sampling if self.is_sampling else ()))

    def is_usable(self, logits: Tensor) -> bool:
        """Return whether a token can be chosen from logits (1, V)."""
        # A mask of the model may be minus infinity, but not for all tokens.
        return not self.is_sampling or bool(logits.amax().isfinite())

    def chooser(self, ids: Sequence[int]) -> TokenChooser:
        """Return a chooser for a row of these ids, the prompt and the reply so far."""
        return TokenChooser(self.settings, [ids], [self.randomness])


@dataclass
class _Group:
    chooser: TokenChooser
    members: list[RowChoice]


class MixedChooser:
    """Chooses a token for each row of a batch by the row's own settings."""

    def __init__(self) -> None:
        self._groups: dict[_Key, _Group] = {}

    def join(self, row: RowChoice, chooser: TokenChooser) -> None:
        """Add a row with its chooser, which must not be used after."""
        group = self._groups.get(row.key)
        if group is None:
            self._groups[row.key] = _Group(chooser, [row])
        else:
            group.chooser.join(chooser)
            group.members.append(row)

    def keep(self, rows: Sequence[RowChoice]) -> None:
        """Keep only these rows."""
        kept = set(rows)
        for key, group in list(self._groups.items()):
            places = [place for place, row in enumerate(group.members) if row in kept]
            if not places:
                del self._groups[key]
            elif len(places) < len(group.members):
                group.members = [group.members[place] for place in places]
                group.chooser.keep(places)

    def choose(self, rows: Sequence[RowChoice], logits: Tensor) -> list[int | None]:
        """Return the next token of each row from logits (B, V); ``rows`` are all rows that joined.

        A token is None if it cannot be sampled because scores are not finite; that row must leave.
        """
        chosen: dict[RowChoice, int | None] = {}
        places = {row: place for place, row in enumerate(rows)}
        for group in self._groups.values():
            chosen.update(_choose(group, logits, [places[row] for row in group.members]))
        return [chosen[row] for row in rows]


def _choose(group: _Group, logits: Tensor, places: Sequence[int]) -> dict[RowChoice, int | None]:
    scores = logits if len(places) == len(logits) else None
    if scores is None or list(places) != list(range(len(logits))):
        scores = logits[list(places)]
    if group.members[0].is_sampling:
        # A mask of the model may be minus infinity, but not for all tokens.
        is_finite = scores.amax(-1).isfinite()
        if not is_finite.all():
            # The other rows draw from their own sources, so this row may take any token.
            chosen = group.chooser.choose(scores.where(is_finite.unsqueeze(1), 0.0))
            finite: list[bool] = is_finite.tolist()
            pairs = zip(chosen, finite, strict=True)
            tokens = [token if is_usable else None for token, is_usable in pairs]
            return dict(zip(group.members, tokens, strict=True))
    return dict(zip(group.members, group.chooser.choose(scores), strict=True))
