"""What is known about one data file so far, in counters, capped lists, and 16 bytes a dialogue to find it again.

The good lines of a block come from `bulk` together; all others are read exactly here.
"""

from __future__ import annotations

import math
import unicodedata
from array import array
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from convo_cli.data.blocks import Block
from convo_cli.data.checks.bulk import GoodLines
from convo_cli.data.checks.characters import count_ascii_letters, count_beyond_ascii
from convo_cli.data.checks.exact import LineRules, Skeleton, read_line
from convo_cli.data.checks.report import FileReport, Leak, ProblemGroup, spread
from convo_cli.data.dialogue import ROLES, SEPARATOR
from convo_cli.data.fingerprint import fingerprints
from convo_cli.data.problems import KINDS, Problem
from convo_cli.data.shapes.unread import UnreadTexts, known_name, measured
from convo_cli.data.strict_json.faults import place

_SCRIPTS = {"HIRAGANA": "Kana", "KATAKANA": "Kana", "KATAKANA-HIRAGANA": "Kana", "CJK": "Han", "IDEOGRAPHIC": "Han"}


class ProblemTally:
    """A `ProblemSink` that counts all problems, and lists the first few of each code."""

    def __init__(self, max_listed: int = 5) -> None:
        self._max_listed = max_listed
        self._counts: Counter[str] = Counter()
        self._listed: dict[str, list[Problem]] = {}

    def __call__(self, problem: Problem) -> None:
        if self.is_listing(problem.code):
            self._listed.setdefault(problem.code, []).append(problem)
        self.count(problem.code)

    def is_listing(self, code: str) -> bool:
        """Whether the next problem of the code will be listed."""
        return len(self._listed.get(code, ())) < self._max_listed

    def count(self, code: str, number: int = 1) -> None:
        """Count problems without listing them."""
        self._counts[code] += number

    def groups(self) -> list[ProblemGroup]:
        """The problems of each code, in the order in which the codes were first met."""
        return [
            ProblemGroup(code, KINDS[code].severity, KINDS[code].hint, count, tuple(self._listed.get(code, ())))
            for code, count in self._counts.items()
        ]


class FileTally:
    """Adds up what the lines of one file are, and what is wrong with them."""

    def __init__(self, file: str, rules: LineRules, max_problems: int) -> None:
        self.file = file
        self._rules = rules
        self._max_problems = max_problems
        self._problems = ProblemTally(max_problems)
        self._first_lines: dict[str, float] = {}
        self._counts: Counter[str] = Counter()
        self._roles: Counter[str] = Counter()
        self._shapes: Counter[str] = Counter()
        self._unread_keys: Counter[str] = Counter()
        self._unread_texts: defaultdict[str, UnreadTexts] = defaultdict(UnreadTexts)
        self._unread_places: dict[str, tuple[int, str]] = {}
        self._turns_per_dialogue: Counter[int] = Counter()
        self._characters_per_dialogue: Counter[int] = Counter()
        self._num_ascii_letters = 0
        self._num_beyond_ascii = np.zeros(0x110000, np.int64)
        # Of each dialogue: its line and the hash of its texts. `finish` puts them in order.
        self._line_numbers = array("q")
        self._text_hashes = array("Q")
        self._lines, self._hashes = np.empty(0, np.int64), np.empty(0, np.uint64)
        self._excluded_line = 0

    def note(self, problem: Problem, line: int = 0, raw: bytes = b"", *, is_last: bool = False) -> None:
        """Count a problem, and list it among the first; ``line`` and ``raw`` place one that has no line yet."""
        self._first_lines.setdefault(problem.code, math.inf if is_last else problem.line or line)
        # Placing means reading the line again, so it is done for the few that are listed.
        is_placed = problem.line or not self._problems.is_listing(problem.code)
        self._problems(problem if is_placed else place(problem, self.file, line, raw))

    def add_block(self, block: Block, good: GoodLines) -> None:
        """Add the good lines of a block together, and read each of the others exactly."""
        # The report lists shapes and keys in the order in which they first appear.
        new = [
            (int(block.numbers[index]), skeleton)
            for index, skeleton in sorted(good.new, key=itemgetter(0), reverse=True)
        ]
        if len(good.lines) < len(block.numbers):
            lines = block.lines()
            texts: list[str] = []
            for index in sorted(set(range(len(lines))).difference(good.lines)):
                number = int(block.numbers[index])
                while new and new[-1][0] < number:
                    self._note_first(*new.pop())
                texts += self._add_line(lines[index], number)
            self._add_texts(texts)
        while new:
            self._note_first(*new.pop())
        self._counts["lines"] += len(good.lines)
        numbers = block.numbers[good.lines]
        self._line_numbers.frombytes(numbers.tobytes())
        self._text_hashes.extend(good.fingerprints)
        self._characters_per_dialogue.update(good.num_characters)
        self._add_characters(good.num_ascii_letters, good.num_beyond_ascii)

    def _add_characters(self, num_ascii_letters: int, num_beyond_ascii: NDArray[np.intp]) -> None:
        self._num_ascii_letters += num_ascii_letters
        self._num_beyond_ascii[: len(num_beyond_ascii)] += num_beyond_ascii

    def _add_texts(self, texts: list[str]) -> None:
        """Count the characters of dialogues together, and note the hash of each."""
        together = SEPARATOR.join(texts)
        num_beyond_ascii = count_beyond_ascii(together)
        self._add_characters(count_ascii_letters(together), num_beyond_ascii)
        beyond_ascii = map(chr, np.flatnonzero(num_beyond_ascii).tolist())
        self._text_hashes.extend(fingerprints(texts, "".join(beyond_ascii)))

    def _add_line(self, raw: bytes, line: int) -> list[str]:
        """Read a line exactly; return the joined texts of its dialogue, where it has one."""
        self._counts["lines"] += 1
        reading = read_line(raw, self._rules, lambda problem: self.note(problem, line, raw))
        if reading is None:
            return []
        skeleton, (turns, unread) = reading
        if skeleton.is_excluded:
            self._counts["excluded"] += 1
            self._excluded_line = self._excluded_line or line
            return []
        texts = [turn.text for _, turn in turns]
        self._note_first(line, skeleton)
        self.add_skeleton(skeleton, 1)
        for key, *numbers in measured(unread, texts):
            self.add_unread(key, *numbers)
        self._line_numbers.append(line)
        self._characters_per_dialogue[sum(map(len, texts))] += 1
        return [SEPARATOR.join(texts)]

    def _note_first(self, line: int, skeleton: Skeleton) -> None:
        """Note a shape, and the keys that are not read, where they appear for the first time."""
        self._shapes[skeleton.shape] += 0
        for path, key in skeleton.unread_keys:
            name = known_name(key, self._unread_keys)
            self._unread_keys[name] += 0
            self._unread_places.setdefault(name, (line, path))

    def add_unread(self, key: str, num_texts: int, num_characters: int) -> None:
        """Add the texts of a key that is not read."""
        self._unread_texts[known_name(key, self._unread_keys)].add(num_texts, num_characters)

    def add_skeleton(self, skeleton: Skeleton, count: int) -> None:
        """Add so many dialogues."""
        roles = skeleton.roles
        self._shapes[skeleton.shape] += count
        self._turns_per_dialogue[len(roles)] += count
        for role, number in Counter(roles).items():
            self._roles[role] += number * count
        for _, key in skeleton.unread_keys:
            self._unread_keys[known_name(key, self._unread_keys)] += count
        self._counts.update(
            with_target=skeleton.has_target * count,
            untrained=skeleton.num_untrained * count,
            reasoning=skeleton.num_reasoning * count,
            ending_on_user=(roles[-1] == "user") * count,
            same_role=any(role == after for role, after in pairwise(roles)) * count,
            one_turn=(sum(role != "system" for role in roles) < 2) * count,
            without_assistant=("assistant" not in roles) * count,
        )

    def finish(self) -> None:
        """Add what only the whole file can tell."""
        lines = np.frombuffer(self._line_numbers, np.int64)
        order = np.argsort(lines)
        self._lines, self._hashes = lines[order], np.frombuffer(self._text_hashes, np.uint64)[order]
        _, first, inverse = np.unique(self._hashes, return_index=True, return_inverse=True)
        original = first[inverse]
        repeats = np.flatnonzero(original != np.arange(len(self._hashes)))
        self._counts["duplicates"] = len(repeats)
        firsts = self._lines[original[repeats[: self._max_problems]]]
        self._note_last("duplicate", repeats, [f"the same dialogue as line {line}" for line in firsts])
        if len(self._lines) and not self._counts["with_target"]:
            self._note_last("nothing-to-train", [0], ["no dialogue of the file has a turn that is trained on"])
        elif self._excluded_line and not len(self._lines):
            message = 'the data says "train": false for every dialogue of the file'
            self._note_at(self._excluded_line, Problem("nothing-to-train", message))
        for key, texts in self._unread_texts.items():
            if texts.is_content(key):
                line, path = self._unread_places[key]
                self._note_at(line, Problem("unread-text", texts.describe(key), path))

    def find_leak(self, earlier: FileTally) -> Leak | None:
        """Note every dialogue that the earlier file has as well."""
        shared = np.flatnonzero(np.isin(self._hashes, earlier._hashes))
        if not len(shared):
            return None
        listed = shared[: self._max_problems]
        theirs = [int(earlier._lines[np.argmax(earlier._hashes == self._hashes[index])]) for index in listed]
        messages = [f"the dialogue is also in {earlier.file}, line {line}" for line in theirs]
        self._note_last("leakage", shared, messages)
        ours = self._lines[listed].tolist()
        return Leak(earlier.file, self.file, len(shared), tuple(zip(theirs, ours, strict=True)))

    def _note_last(self, code: str, indices: Sequence[int] | NDArray[np.intp], messages: list[str]) -> None:
        """Count a problem of so many dialogues, the first of which have messages."""
        for index, message in zip(indices, messages, strict=False):
            self._note_at(int(self._lines[index]), Problem(code, message))
        if len(indices) > len(messages):
            self._first_lines.setdefault(code, math.inf)
            self._problems.count(code, len(indices) - len(messages))

    def _note_at(self, line: int, problem: Problem) -> None:
        self.note(replace(problem, column=1, line=line, file=self.file), is_last=True)

    def as_report(self) -> FileReport:
        num_characters = sum(length * count for length, count in self._characters_per_dialogue.items())
        return FileReport(
            file=self.file,
            num_lines=self._counts["lines"],
            num_dialogues=len(self._lines),
            num_turns=self._roles.total(),
            num_turns_by_role={role: self._roles[role] for role in ROLES},
            num_excluded=self._counts["excluded"],
            num_untrained_turns=self._counts["untrained"],
            num_reasoning_turns=self._counts["reasoning"],
            reasoning=self._rules.data_config.reasoning,
            num_characters=num_characters,
            shapes=dict(self._shapes.most_common()),
            unread_keys=dict(self._unread_keys.most_common()),
            turns_per_dialogue=spread(self._turns_per_dialogue),
            characters_per_dialogue=spread(self._characters_per_dialogue),
            scripts=self._scripts(),
            num_ending_on_user=self._counts["ending_on_user"],
            num_with_same_role_in_a_row=self._counts["same_role"],
            num_one_turn=self._counts["one_turn"],
            num_without_assistant=self._counts["without_assistant"],
            num_duplicates=self._counts["duplicates"],
            problem_groups=tuple(self._problem_groups()),
        )

    def _problem_groups(self) -> list[ProblemGroup]:
        return sorted(
            self._problems.groups(), key=lambda group: (group.severity != "error", self._first_lines[group.code])
        )

    def _scripts(self) -> dict[str, float]:
        scripts: Counter[str] = Counter()
        scripts["Latin"] = self._num_ascii_letters
        beyond_ascii = np.flatnonzero(self._num_beyond_ascii)
        for code, count in zip(beyond_ascii.tolist(), self._num_beyond_ascii[beyond_ascii].tolist(), strict=True):
            if chr(code).isalpha():
                scripts[_script(chr(code))] += count
        total = scripts.total()
        by_share = sorted(scripts.items(), key=lambda item: (-item[1], item[0]))
        return {script: count / total for script, count in by_share if count}


def _script(letter: str) -> str:
    """The writing system of a letter, from its Unicode name: LATIN SMALL LETTER A, HALFWIDTH KATAKANA LETTER A."""
    words = unicodedata.name(letter, "OTHER").split()
    first = words[1] if words[0] in ("FULLWIDTH", "HALFWIDTH") and len(words) > 1 else words[0]
    return _SCRIPTS.get(first, first.capitalize())
