"""Statistics of one data file: counters, the first few problems of each code, and fingerprints.

They keep 16 bytes per dialogue. Blocks are added in file order; duplicates, leaks and texts that
are not read are found at the end of the file.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from convo_cli.data.blocks import Block
from convo_cli.data.checks.characters import scripts
from convo_cli.data.checks.exact import Skeleton
from convo_cli.data.checks.problem_tally import ProblemGroup, ProblemTally
from convo_cli.data.checks.report import FileReport, Leak, spread
from convo_cli.data.dialogue import ROLES
from convo_cli.data.fingerprint import find_repeats, is_among
from convo_cli.data.problems import Problem, at_line
from convo_cli.data.roles.bad_lines import BadLines
from convo_cli.data.shapes.unread import UnreadTexts, known_name
from convo_cli.data.strict_json.columns import place_all

if TYPE_CHECKING:
    from convo_cli.config.schema import DataConfig
    from convo_cli.data.roles.proposal import Proposal


@dataclass(slots=True)
class BlockStatistics:
    """The statistics of one block; lines are counted from 0 within it.

    They do not depend on other blocks, so any process can compute them.
    """

    dialogues: list[int] = field(default_factory=list)
    """Lines that hold a dialogue to train on, in no particular order."""
    fingerprints: list[int] = field(default_factory=list)
    num_characters: list[int] = field(default_factory=list)
    """Characters in the texts of each dialogue."""
    skeletons: dict[Skeleton, tuple[int, int]] = field(default_factory=dict)
    """The first line and the number of dialogues with each skeleton."""
    unread: dict[str, UnreadTexts] = field(default_factory=dict)
    excluded: list[int] = field(default_factory=list)
    """Lines that the data excludes from training."""
    num_ascii_letters: int = 0
    beyond_ascii: list[tuple[NDArray[np.intp], NDArray[np.intp]]] = field(default_factory=list)
    """Pairs of code points and their counts; a code point may be in several pairs."""
    bad_lines: BadLines = field(default_factory=BadLines)
    num_stripped: int = 0
    problems: list[tuple[int, Problem]] = field(default_factory=list)
    """The first few problems of each code, each with its line, which the problem itself lacks."""
    num_more_problems: Counter[str] = field(default_factory=Counter)

    def add_skeleton(self, skeleton: Skeleton, line: int, count: int = 1) -> None:
        """Add dialogues with this skeleton; ``line`` is that of the first."""
        first, before = self.skeletons.get(skeleton, (line, 0))
        self.skeletons[skeleton] = min(first, line), before + count

    def add_unread(self, key: str, num_texts: int, num_characters: int) -> None:
        self.unread.setdefault(key, UnreadTexts()).add(num_texts, num_characters)


class FileStatistics:
    """Accumulates the counters and problems of one file."""

    def __init__(self, file: str, data_config: DataConfig, max_problems: int) -> None:
        self.file = file
        self._data_config = data_config
        self._bad_lines = BadLines()
        self._max_problems, self._problems = max_problems, ProblemTally(max_problems)
        self._first_lines: dict[str, float] = {}
        self._counts: Counter[str] = Counter()
        self._roles: Counter[str] = Counter()
        self._shapes, self._unread_keys = Counter[str](), Counter[str]()
        self._unread_texts: defaultdict[str, UnreadTexts] = defaultdict(UnreadTexts)
        self._unread_places: dict[str, tuple[int, str]] = {}
        self._turns_per_dialogue, self._characters_per_dialogue = Counter[int](), Counter[int]()
        self._num_ascii_letters, self._num_beyond_ascii = 0, np.zeros(0x110000, np.int64)
        # The line and the fingerprint of each dialogue; `finish` sorts them.
        self._unsorted_lines, self._unsorted_fingerprints = array("q"), array("Q")
        self._lines, self._fingerprints = np.empty(0, np.int64), np.empty(0, np.uint64)
        self._excluded_line = 0

    def note(self, problem: Problem, *, is_last: bool = False) -> None:
        """Count a problem, and list it if it is among the first of its code."""
        self._first_lines.setdefault(problem.code, math.inf if is_last else problem.line)
        self._problems(problem)

    def add_block(self, block: Block, found: BlockStatistics) -> None:
        """Add the next block of the file."""
        numbers, excluded = block.numbers, found.excluded
        self._counts.update(lines=len(numbers), excluded=len(excluded), stripped=found.num_stripped)
        if excluded and not self._excluded_line:
            self._excluded_line = int(numbers[excluded[0]])
        self._add_problems(block, found)
        self._bad_lines.merge(found.bad_lines)
        # The report lists shapes and keys in the order in which they first appear.
        for skeleton, (line, count) in sorted(found.skeletons.items(), key=lambda item: item[1]):
            self._add_skeleton(skeleton, int(numbers[line]), count)
        for key, texts in found.unread.items():
            name = known_name(key, self._unread_keys)
            self._unread_texts[name].add(texts.num_texts, texts.num_characters)
        self._unsorted_lines.frombytes(numbers[found.dialogues].tobytes())
        self._unsorted_fingerprints.extend(found.fingerprints)
        self._characters_per_dialogue.update(found.num_characters)
        self._num_ascii_letters += found.num_ascii_letters
        for codes, counts in found.beyond_ascii:
            self._num_beyond_ascii[codes] += counts

    def _add_problems(self, block: Block, found: BlockStatistics) -> None:
        lines = block.lines() if found.problems else []
        for index, group in groupby(found.problems, key=itemgetter(0)):
            line, problems = int(block.numbers[index]), [problem for _, problem in group]
            # To locate a problem, the line is scanned again; that is only done for a listed one.
            if any(self._problems.is_listing(problem.code) for problem in problems):
                problems = place_all(problems, self.file, line, lines[index])
            else:
                problems = [at_line(problem, self.file, line) for problem in problems]
            for problem in problems:
                self._first_lines.setdefault(problem.code, line)
                self._problems(problem)
        for code, count in found.num_more_problems.items():
            self._problems.count(code, count)

    def _add_skeleton(self, skeleton: Skeleton, line: int, count: int) -> None:
        """Add dialogues with this skeleton; ``line`` is that of the first."""
        roles = skeleton.roles
        self._shapes[skeleton.shape] += count
        self._turns_per_dialogue[len(roles)] += count
        for role, number in Counter(roles).items():
            self._roles[role] += number * count
        for path, key in skeleton.unread_keys:
            name = known_name(key, self._unread_keys)
            self._unread_keys[name] += count
            self._unread_places.setdefault(name, (line, path))
        self._counts.update(
            with_target=skeleton.has_target * count,
            untrained=skeleton.num_untrained * count,
            reasoning=skeleton.num_reasoning * count,
            with_references=skeleton.num_with_references * count,
            calls=skeleton.num_calls * count,
            ending_on_user=(roles[-1] == "user") * count,
            same_role=any(a == b != "tool" for a, b in pairwise(roles)) * count,
            one_turn=(sum(role != "system" for role in roles) < 2) * count,
            without_assistant=("assistant" not in roles) * count,
        )

    def finish(self) -> None:
        """Add the problems and counters that need the whole file."""
        order = np.argsort(lines := np.frombuffer(self._unsorted_lines, np.int64))
        self._lines = lines[order]
        self._fingerprints = np.frombuffer(self._unsorted_fingerprints, np.uint64)[order]
        del lines, order
        self._unsorted_lines, self._unsorted_fingerprints = array("q"), array("Q")
        repeats, firsts = find_repeats(self._fingerprints, self._max_problems)
        self._counts["duplicates"] = len(repeats)
        messages = [f"the dialogue repeats line {line}" for line in self._lines[firsts]]
        self._note_last("duplicate", repeats, messages)
        if len(self._lines) and not self._counts["with_target"]:
            message = "no dialogue in the file has a turn to train on"
            self._note_last("nothing-to-train", [0], [message])
        elif self._excluded_line and not len(self._lines):
            message = 'every dialogue in the file is marked "train": false'
            self._note_at(self._excluded_line, Problem("nothing-to-train", message))
        for key in self._unread_keys:
            texts = self._unread_texts[key]
            if texts.is_content(key):
                line, path = self._unread_places[key]
                self._note_at(line, Problem("unread-text", texts.describe(key), path))

    def find_leak(self, earlier: FileStatistics) -> Leak | None:
        """Count every dialogue that is also in the earlier file as leakage."""
        shared = np.flatnonzero(is_among(self._fingerprints, np.sort(earlier._fingerprints)))
        if not len(shared):
            return None
        listed = shared[: self._max_problems]
        theirs = [
            int(earlier._lines[np.argmax(earlier._fingerprints == self._fingerprints[index])])
            for index in listed
        ]
        messages = [f"the dialogue is also in {earlier.file}:{line}" for line in theirs]
        self._note_last("leakage", shared, messages)
        ours = self._lines[listed].tolist()
        return Leak(earlier.file, self.file, len(shared), tuple(zip(theirs, ours, strict=True)))

    def _note_last(
        self, code: str, indices: Sequence[int] | NDArray[np.intp], messages: list[str]
    ) -> None:
        """Count a problem of the dialogues at ``indices``; the first of them have messages."""
        for index, message in zip(indices, messages, strict=False):
            self._note_at(int(self._lines[index]), Problem(code, message))
        if len(indices) > len(messages):
            self._first_lines.setdefault(code, math.inf)
            self._problems.count(code, len(indices) - len(messages))

    def _note_at(self, line: int, problem: Problem) -> None:
        self.note(at_line(problem, self.file, line), is_last=True)

    def as_report(self) -> FileReport:
        lengths = self._characters_per_dialogue
        return FileReport(
            file=self.file,
            num_lines=self._counts["lines"],
            num_dialogues=len(self._lines),
            num_turns=self._roles.total(),
            num_turns_by_role={role: self._roles[role] for role in ROLES},
            num_tool_calls=self._counts["calls"],
            num_tool_results=self._roles["tool"],
            num_excluded=self._counts["excluded"],
            num_untrained_turns=self._counts["untrained"],
            num_reasoning_turns=self._counts["reasoning"],
            num_turns_with_references=self._counts["with_references"],
            reasoning=self._data_config.reasoning,
            num_characters=sum(length * count for length, count in lengths.items()),
            num_stripped_texts=self._counts["stripped"],
            shapes=dict(self._shapes.most_common()),
            unread_keys=dict(self._unread_keys.most_common()),
            turns_per_dialogue=spread(self._turns_per_dialogue),
            characters_per_dialogue=spread(lengths),
            scripts=scripts(self._num_ascii_letters, self._num_beyond_ascii),
            num_ending_on_user=self._counts["ending_on_user"],
            num_with_same_role_in_a_row=self._counts["same_role"],
            num_one_turn=self._counts["one_turn"],
            num_without_assistant=self._counts["without_assistant"],
            num_duplicates=self._counts["duplicates"],
            problem_groups=tuple(self.problem_groups()),
            proposal=self.proposal(),
        )

    def proposal(self) -> Proposal | None:
        return self._bad_lines.proposal(
            self._data_config, has_good=bool(self._unsorted_lines or len(self._lines))
        )

    def problem_groups(self) -> list[ProblemGroup]:
        """Return the problems of each code, errors first."""
        return sorted(
            self._problems.groups(),
            key=lambda group: (group.severity != "error", self._first_lines[group.code]),
        )
