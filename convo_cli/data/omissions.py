"""Counts of everything in a data file that is not trained on, and the notices about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import msgspec

from convo_cli.config.schema import Reasoning
from convo_cli.data.shapes.unread import UnreadTexts, known_name, measured
from convo_cli.events import Emit, Notice

if TYPE_CHECKING:
    from convo_cli.data.shapes.turns import LineReading

_MAX_NAMED = 5


class Omissions(msgspec.Struct):
    """The counts of one file."""

    num_excluded: int = 0
    """Dialogues that the data excludes from training."""
    num_reasoning: int = 0
    """Turns with reasoning, kept or dropped."""
    unread: dict[str, UnreadTexts] = msgspec.field(default_factory=dict)
    """Texts in keys that are not read."""

    def add(self, reading: LineReading) -> None:
        """Count the reasoning and the unread texts of a line."""
        self.num_reasoning += sum(turn.has_reasoning for _, turn in reading.turns)
        if reading.unread:
            texts = [turn.text for _, turn in reading.turns]
            for key, *numbers in measured(reading.unread, texts):
                self.unread.setdefault(known_name(key, self.unread), UnreadTexts()).add(*numbers)

    def notices(self, file: str, reasoning: Reasoning | None) -> Iterator[Notice]:
        """Yield the notices that a run emits about ``file``."""
        if self.num_excluded:
            dialogues = (
                "1 dialogue is"
                if self.num_excluded == 1
                else f"{self.num_excluded:,} dialogues are"
            )
            yield Notice(f'{file}: {dialogues} left out, because the data says "train": false')
        if self.num_reasoning:
            turns = "1 turn" if self.num_reasoning == 1 else f"{self.num_reasoning:,} turns"
            done = "kept, and trained on" if reasoning == "keep" else "dropped"
            yield Notice(
                f"{file}: the reasoning of {turns} is {done} (data.reasoning: {reasoning})"
            )
        keys = [key for key, texts in self.unread.items() if texts.is_content(key)]
        keys.sort(key=lambda key: -self.unread[key].num_characters)
        named = "; ".join(self.unread[key].describe(key) for key in keys[:_MAX_NAMED])
        more = f"; {len(keys) - _MAX_NAMED} more keys" if len(keys) > _MAX_NAMED else ""
        if keys:
            yield Notice(f"{file}: {named}{more}", is_warning=True)


def report_omissions(
    omissions: Iterable[Omissions], files: Iterable[str], reasoning: Reasoning | None, emit: Emit
) -> None:
    """Emit the notices of every file."""
    for left_out, file in zip(omissions, files, strict=True):
        for notice in left_out.notices(file, reasoning):
            emit(notice)
