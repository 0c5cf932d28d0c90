"""Floors: scores of trivial replies to the same turns, made without a model."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from tempfile import SpooledTemporaryFile
from typing import IO

from convo_cli.events import SampleReply
from convo_cli.metrics.metric_table import METRICS
from convo_cli.metrics.reply_texts import last_user_turn

FLOORS: Mapping[str, str] = {
    "constant": "the most frequent reply",
    "echo": "a copy of the last user turn",
    "random": "a random reply",
}
"""All floors, in the order in which they are shown."""

_NUM_SAMPLED = 10_000  # replies; keeps the memory bounded
_HASH_BYTES = 8
_SPOOLED_BYTES = 2**16
_HEAD_ROLES = ("system", "tools")


@dataclass(frozen=True, slots=True)
class TrainingReplies:
    """Replies of the training data, or of the evaluated file if there is no training data."""

    most_frequent: str
    sample: tuple[str, ...]
    source: str
    """Their source, such as "the run's training data" or "the evaluated file"."""
    openings: tuple[int, ...] = ()
    """Hash of the opening of each sampled reply's dialogue; empty if not known."""


def training_replies(
    dialogues: Iterable[Sequence[tuple[str, str]]], source: str, *, seed: int = 0
) -> TrainingReplies | None:
    """Collect the replies of dialogues, given as (role, text) of each turn, in one pass.

    Memory is bounded: it has a random sample of the texts, and a temporary file the hash of each
    reply. None without a reply.
    """
    num_replies = 0
    sample: list[tuple[str, int]] = []
    rng = random.Random(seed)
    with SpooledTemporaryFile(_SPOOLED_BYTES) as hashes:
        for turns in dialogues:
            opening = _opening(turns)
            for place, (role, text) in enumerate(turns):
                if role != "assistant" or place == 0 or not text.strip():
                    continue
                # Reservoir sampling (Vitter 1985, algorithm R).
                if len(sample) < _NUM_SAMPLED:
                    sample.append((text, opening))
                elif (slot := rng.randrange(num_replies + 1)) < _NUM_SAMPLED:
                    sample[slot] = (text, opening)
                num_replies += 1
                hashes.write(_digest(text))
        if not sample:
            return None
        most_frequent = _most_frequent_of([text for text, _ in sample], hashes)
    texts, openings = zip(*sample, strict=True)
    return TrainingReplies(most_frequent, texts, source, openings)


def _most_frequent_of(texts: Sequence[str], hashes: IO[bytes]) -> str:
    """Return the first text with the most hashes in the file."""
    counts = dict.fromkeys(map(_digest, texts), 0)
    hashes.seek(0)
    while block := hashes.read(_SPOOLED_BYTES):
        for begin in range(0, len(block), _HASH_BYTES):
            digest = block[begin : begin + _HASH_BYTES]
            if digest in counts:
                counts[digest] += 1
    return max(texts, key=lambda text: counts[_digest(text)])


def floor_replies(
    replies: Sequence[SampleReply], training: TrainingReplies | None, *, seed: int = 0
) -> dict[str, list[SampleReply]]:
    """Return the replies of each floor to the turns of ``replies``, by the floor's name.

    No reply is taken from a dialogue with the same opening. A floor is left out if it has no reply
    to one of the turns.
    """
    texts: dict[str, list[str] | None] = {
        "constant": None if training is None else _most_frequent(replies, training),
        "echo": [last_user_turn(reply) for reply in replies],
        "random": None if training is None else _drawn(replies, training, random.Random(seed)),
    }
    return {
        name: [
            replace(reply, reply=text, stopped=True)
            for reply, text in zip(replies, several, strict=True)
        ]
        for name, several in texts.items()
        if several is not None
    }


def _most_frequent(replies: Sequence[SampleReply], training: TrainingReplies) -> list[str] | None:
    """Return for each turn the most frequent reply that another dialogue has too."""
    origins: dict[str, set[int | None]] = {}
    for text, opening in _pairs(training):
        origins.setdefault(text, set()).add(opening)
    counts = Counter(training.sample)
    ranked = sorted(origins, key=lambda text: (text != training.most_frequent, -counts[text]))
    chosen = []
    for reply in replies:
        own = {_opening(reply.history)}
        others = (text for text in ranked if origins[text] != own)
        if (found := next(others, None)) is None:
            return None
        chosen.append(found)
    return chosen


def _drawn(
    replies: Sequence[SampleReply], training: TrainingReplies, rng: random.Random
) -> list[str] | None:
    """Draw a reply of another dialogue for each turn; None if a turn has none."""
    pairs = _pairs(training)
    drawn = []
    for reply in replies:
        own = _opening(reply.history)
        text, opening = rng.choice(pairs)
        if opening == own:
            others = [other for other, source in pairs if source != own]
            if not others:
                return None
            text = rng.choice(others)
        drawn.append(text)
    return drawn


def _pairs(training: TrainingReplies) -> list[tuple[str, int | None]]:
    """Return each sampled reply with the opening of its dialogue, None if unknown."""
    openings = training.openings or (None,) * len(training.sample)
    return list(zip(training.sample, openings, strict=True))


def _opening(turns: Sequence[tuple[str, str]]) -> int:
    """Return a hash of the first turn of a dialogue that is neither system text nor tools."""
    return _hash(next((text for role, text in turns if role not in _HEAD_ROLES), ""))


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=_HASH_BYTES).digest()


def _hash(text: str) -> int:
    return int.from_bytes(_digest(text), "little")


def describe_floors(
    scores: Mapping[str, float],
    floor_intervals: Mapping[str, Mapping[str, tuple[float, float]]],
    source: str,
) -> str:
    """Return a sentence about the scores that are not above a floor's 95 % interval.

    ``floor_intervals`` has, by floor, the interval of each metric; ``source`` is that of the
    training replies, empty without any. Only similarity metrics have a floor. Empty if nothing can
    be compared.
    """
    compared = [name for name in scores if name in METRICS and METRICS[name].has_floor]
    floors_of: dict[tuple[str, ...], list[str]] = {}
    for floor, intervals in floor_intervals.items():
        compared_here = [name for name in compared if name in intervals]
        if not compared_here:
            continue
        names = tuple(
            name for name in compared_here if not _is_above(name, scores[name], intervals[name])
        )
        floors_of.setdefault(names, []).append(FLOORS.get(floor, floor))
    if not floors_of:
        return ""
    parts = [
        f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} no better than "
        f"{' or '.join(floors)}"
        for names, floors in floors_of.items()
        if names
    ]
    sentence = "; ".join(parts) or "all similarity scores are better than the floors"
    return f"{sentence} (replies from {source})" if source else sentence


def _is_above(name: str, score: float, interval: tuple[float, float]) -> bool:
    low, high = interval
    return score > high if METRICS[name].is_higher_better else score < low
