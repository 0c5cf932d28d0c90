"""Counts of everything in a data file that a run does not train on, and the notices about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import msgspec

from convo_cli.config.schema import Reasoning
from convo_cli.data.shapes.unread import UnreadTexts, known_name, measured
from convo_cli.events import Emit, Notice
from convo_cli.wording import counted

if TYPE_CHECKING:
    from convo_cli.data.shapes.turns import LineReading

_MAX_NAMED = 5


class Omissions(msgspec.Struct):
    """The counts of one file."""

    num_excluded: int = 0
    """Dialogues that the data excludes from training."""
    num_reasoning: int = 0
    """Turns with reasoning, kept or dropped."""
    num_tool_calls: int = 0
    """Turns with tool calls."""
    num_tool_results: int = 0
    unread: dict[str, UnreadTexts] = msgspec.field(default_factory=dict)
    """Texts under keys that are not read."""
    num_held_back: int = 0
    """Training dialogues that `data.validation_split` holds back; they are reported for all files
    together."""
    num_line_ends: int = 0
    """Texts with carriage returns, which became newlines."""

    def add(self, reading: LineReading) -> None:
        """Count the reasoning and the unread texts of a line."""
        self.num_reasoning += sum(turn.has_reasoning for _, turn in reading.turns)
        self.num_tool_calls += sum(turn.is_call for _, turn in reading.turns)
        self.num_tool_results += sum(turn.role == "tool" for _, turn in reading.turns)
        self.num_line_ends += reading.num_line_ends
        if reading.unread:
            texts = [turn.text for _, turn in reading.turns]
            for key, *numbers in measured(reading.unread, texts):
                self.unread.setdefault(known_name(key, self.unread), UnreadTexts()).add(*numbers)

    def notices(self, file: str, reasoning: Reasoning | None) -> Iterator[Notice]:
        """Yield the notices that a run emits about ``file``."""
        if self.num_excluded:
            dialogues = counted(self.num_excluded, "dialogue")
            yield Notice(f'{file}: left out {dialogues} marked "train": false')
        if self.num_reasoning:
            turns = counted(self.num_reasoning, "turn")
            done = "kept and trained on" if reasoning == "keep" else "dropped"
            setting = f"data.reasoning: {reasoning}"
            yield Notice(f"{file}: the reasoning of {turns} is {done} ({setting})")
        if self.num_tool_calls + self.num_tool_results:
            calls = counted(self.num_tool_calls, "turn")
            results = counted(self.num_tool_results, "tool result")
            yield Notice(f"{file}: {calls} with tool calls and {results} are context, not targets")
        if self.num_line_ends:
            texts = counted(self.num_line_ends, "text")
            done = "carriage returns are read as newlines"
            yield Notice(f"{file}: {texts} with line ends of Windows: {done}", is_warning=True)
        keys = [key for key, texts in self.unread.items() if texts.is_content(key)]
        keys.sort(key=lambda key: -self.unread[key].num_characters)
        named = "; ".join(self.unread[key].describe(key) for key in keys[:_MAX_NAMED])
        more = f"; {counted(len(keys) - _MAX_NAMED, 'more key')}" if len(keys) > _MAX_NAMED else ""
        if keys:
            hint = "to train on a text, move it into a turn"
            yield Notice(f"{file}: {named}{more}; {hint}", is_warning=True)


def report_omissions(
    omissions: Iterable[Omissions], files: Iterable[str], reasoning: Reasoning | None, emit: Emit
) -> None:
    """Emit the notices of every file."""
    for left_out, file in zip(omissions, files, strict=True):
        for notice in left_out.notices(file, reasoning):
            emit(notice)
