"""Reader of a block of lines: `bulk` reads the good lines together, `exact` reads the others."""

from __future__ import annotations

from collections import Counter

import numpy as np

from convo_cli.data.checks.bulk import BulkReader
from convo_cli.data.checks.characters import count_ascii_letters, count_beyond_ascii
from convo_cli.data.checks.exact import LineRules, read_line
from convo_cli.data.checks.statistics import BlockStatistics
from convo_cli.data.dialogue import SEPARATOR
from convo_cli.data.fingerprint import fingerprints
from convo_cli.data.problems import Problem
from convo_cli.data.roles.bad_lines import SURVEYED
from convo_cli.data.shapes.unread import measured
from convo_cli.data.strict_json.decoder import read


class BlockReader:
    """Reads blocks of any file; the result for a block does not depend on other blocks."""

    def __init__(self, rules: LineRules, max_problems: int) -> None:
        self._rules = rules
        # At least one, because the report is ordered by the first problem of each code.
        self._max_kept = max(1, max_problems)
        self._bulk = BulkReader(rules)

    def read(self, data: bytes) -> BlockStatistics:
        """Read whole lines, none of them blank."""
        found = self._bulk.read(data)
        if len(found.dialogues) < data.count(b"\n"):
            self._read_others(data.split(b"\n")[:-1], found)
        return found

    def _read_others(self, lines: list[bytes], found: BlockStatistics) -> None:
        """Read each line that the bulk reader left out with the exact reader."""
        num_found: Counter[str] = Counter()
        joined: list[str] = []

        of_line: set[str] = set()

        def note(problem: Problem) -> None:
            of_line.add(problem.code)
            num_found[problem.code] += 1
            if num_found[problem.code] <= self._max_kept:
                found.problems.append((number, problem))

        for number in sorted(set(range(len(lines))).difference(found.dialogues)):
            of_line.clear()
            reading = read_line(lines[number], self._rules, note)
            if reading is None:
                if not SURVEYED.isdisjoint(of_line):
                    value = read(lines[number])
                    found.bad_lines.add(value, of_line, self._rules.data_config)
                continue
            skeleton, line = reading
            if skeleton.is_excluded:
                found.excluded.append(number)
                continue
            texts = [turn.content for _, turn in line.turns]
            found.add_skeleton(skeleton, number)
            for key, *numbers in measured(line.unread, texts):
                found.add_unread(key, *numbers)
            found.num_stripped += line.num_stripped
            found.dialogues.append(number)
            found.num_characters.append(sum(map(len, texts)))
            joined.append(SEPARATOR.join(texts))
        found.num_more_problems = num_found - Counter(problem.code for _, problem in found.problems)
        together = SEPARATOR.join(joined)
        counts = count_beyond_ascii(together)
        codes = np.flatnonzero(counts)
        found.beyond_ascii.append((codes, counts[codes]))
        found.num_ascii_letters += count_ascii_letters(together)
        found.fingerprints += fingerprints(joined, "".join(map(chr, codes.tolist())))
