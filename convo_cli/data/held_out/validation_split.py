"""Split of dialogues into training and validation by their opening: `data.validation_split`.

The opening is the first two turns without the system's, normalised like a fingerprint. Its hash
decides, so dialogues with the same opening are on one side, in every file, run and process, and a
larger share only adds dialogues to the validation side.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from convo_cli.data.dialogue import HEAD_ROLES, SEPARATOR, Turn
from convo_cli.data.fingerprint import normalised
from convo_cli.errors import DataError

_NUM_HASHES = 2**64
_CHANCE = 4
"""Standard deviations of the number of held-back dialogues; chance exceeds them once in 16,000."""


@dataclass(frozen=True, slots=True)
class ValidationSplit:
    """The rule for one set of dialogues."""

    bound: int
    """Dialogues are held back for validation if the hash of their opening is below it."""

    def is_held_back(self, opening: int) -> bool:
        """Return whether dialogues whose opening has this hash belong to validation."""
        return opening < self.bound


def hash_opening(turns: Sequence[Turn]) -> int:
    """Return 64 bits of the opening, which do not depend on those of the fingerprint."""
    opening = [turn.content for turn in turns if turn.role not in HEAD_ROLES][:2]
    form = normalised(SEPARATOR.join(opening)).encode()
    digest = hashlib.blake2b(form, digest_size=8, person=b"validation split").digest()
    return int.from_bytes(digest, "little")


def find_split(openings: Iterable[int], share: float) -> ValidationSplit:
    """Return the rule for dialogues with these hashes; it reads until both sides have one.

    If the share leaves a side empty, it gets the dialogues of one opening: validation those with
    the lowest hash, training those with the highest. DataError if all openings are equal.
    """
    bound = math.ceil(share * _NUM_HASHES)
    lowest, highest, num_read = _NUM_HASHES, -1, 0
    for opening in openings:
        lowest, highest, num_read = min(lowest, opening), max(highest, opening), num_read + 1
        if lowest < bound <= highest:
            return ValidationSplit(bound)
    if lowest == highest:
        what = (
            f"all {num_read:,} dialogues begin with the same two turns"
            if num_read > 1
            else "the data contains only one dialogue"
        )
        raise DataError(
            f"data.validation_split: {what}, so none can be held back for validation",
            hint="set data.validation_split: null, or name a file with other dialogues in "
            "data.validation instead",
        )
    return ValidationSplit(min(max(bound, lowest + 1), highest))


def is_by_chance(num_held_back: int, num_dialogues: int, share: float) -> bool:
    """Return whether so many dialogues can be held back although every opening is different."""
    deviation = math.sqrt(num_dialogues * share * (1 - share))
    return abs(num_held_back - num_dialogues * share) <= 1 + _CHANCE * deviation
