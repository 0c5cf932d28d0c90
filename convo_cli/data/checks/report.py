"""The report of a validation as dataclasses: `statistics` fills them, `cli/views` renders them."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convo_cli.data.checks.problem_tally import ProblemGroup

if TYPE_CHECKING:
    from convo_cli.config.schema import Reasoning
    from convo_cli.data.roles.proposal import Proposal


@dataclass(frozen=True, slots=True)
class Bucket:
    """The number of values from ``low`` to ``high``, both included."""

    low: int
    high: int
    count: int


@dataclass(frozen=True, slots=True)
class Spread:
    """The distribution of a number over dialogues; the buckets double in width and leave no gap."""

    min: int
    median: float
    mean: float
    max: int
    histogram: tuple[Bucket, ...]


@dataclass(frozen=True, slots=True)
class FileReport:
    """The report of one file. Characters are those of the texts, without the JSON around them."""

    file: str
    num_lines: int
    """Lines that are not blank."""
    num_dialogues: int
    """Lines with a dialogue that can be read and is not excluded."""
    num_excluded: int
    """Dialogues that the data excludes from training."""
    num_turns: int
    num_turns_by_role: Mapping[str, int]
    num_tool_calls: int
    """Assistant turns with tool calls, which are context."""
    num_tool_results: int
    """Turns with the result of a tool, of no role above."""
    num_untrained_turns: int
    """Turns with ``"train": false``."""
    num_reasoning_turns: int
    """Turns with reasoning, kept or dropped."""
    num_turns_with_references: int
    """Assistant turns with other good replies, for evaluations."""
    reasoning: Reasoning | None
    """The setting `data.reasoning`."""
    num_characters: int
    num_stripped_texts: int
    """Texts with white space at an end, which is removed."""
    shapes: Mapping[str, int]
    """Dialogues by the JSON shape of their line."""
    unread_keys: Mapping[str, int]
    """How often each key occurs that is not read, such as an id; at most 100 different keys."""
    turns_per_dialogue: Spread | None
    characters_per_dialogue: Spread | None
    scripts: Mapping[str, float]
    """Share of each writing system (Latin, Hangul, Kana, Han, …) in the letters, largest first."""
    num_ending_on_user: int
    num_with_same_role_in_a_row: int
    """Dialogues in which one role has two turns in a row."""
    num_one_turn: int
    num_without_assistant: int
    num_duplicates: int
    """Dialogues equal to an earlier one, ignoring case, width, white space and speakers."""
    problem_groups: tuple[ProblemGroup, ...]
    """Errors first, then warnings."""
    proposal: Proposal | None
    """A mapping with which the file may become readable; None if nothing suggests one."""

    @property
    def num_errors(self) -> int:
        return sum(group.count for group in self.problem_groups if group.severity == "error")

    @property
    def num_warnings(self) -> int:
        return sum(group.count for group in self.problem_groups if group.severity == "warning")


@dataclass(frozen=True, slots=True)
class Leak:
    """Dialogues of ``file`` that are also in ``earlier_file``, with some of the pairs of lines."""

    earlier_file: str
    file: str
    num_dialogues: int
    examples: tuple[tuple[int, int], ...]
    """(line of ``earlier_file``, line of ``file``)."""


@dataclass(frozen=True, slots=True)
class DataReport:
    files: tuple[FileReport, ...]
    leaks: tuple[Leak, ...]

    @property
    def num_errors(self) -> int:
        return sum(file.num_errors for file in self.files)

    @property
    def num_warnings(self) -> int:
        return sum(file.num_warnings for file in self.files)

    @property
    def proposals(self) -> dict[str, Proposal]:
        """Return the mapping that each file probably needs."""
        return {file.file: one for file in self.files if (one := file.proposal) is not None}

    @property
    def is_trainable(self) -> bool:
        """Return whether there is no error; a file without an assistant turn counts as an error."""
        return self.num_errors == 0


def spread(counts: Mapping[int, int]) -> Spread | None:
    """Summarise positive values, given how often each occurs; None without a value."""
    if not counts:
        return None
    values = sorted(counts)
    cumulative = list(itertools.accumulate(counts[value] for value in values))
    total = cumulative[-1]

    def ranked(rank: int) -> int:
        return values[bisect.bisect_right(cumulative, rank)]

    buckets = [0] * (values[-1].bit_length() + 1)
    for value in values:
        buckets[value.bit_length()] += counts[value]
    return Spread(
        min=values[0],
        median=(ranked((total - 1) // 2) + ranked(total // 2)) / 2,
        mean=sum(value * count for value, count in counts.items()) / total,
        max=values[-1],
        histogram=tuple(
            Bucket(2 ** (bits - 1), 2**bits - 1, buckets[bits])
            for bits in range(values[0].bit_length(), values[-1].bit_length() + 1)
        ),
    )
