"""Size of data files: dialogues, characters and lengths, exact for small files.

The first part of the files is read as dialogues. Further lines are counted. Beyond that, the number
of lines follows from the part of the file that was read, so a file of any size takes about a
second.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from convo_cli.config.schema import DataConfig
from convo_cli.data.dialogue import Turn
from convo_cli.data.held_out.validation_split import find_split, hash_opening
from convo_cli.data.problems import Problem
from convo_cli.data.reader import iter_blocks
from convo_cli.data.shapes.turns import read_value
from convo_cli.data.sizing.choices import DataSize
from convo_cli.data.strict_json.decoder import decode

_READ_BYTES = 2**23
"""Bytes of all files together that are read as dialogues."""
_COUNTED_BYTES = 2**26
"""Bytes of each file in which lines are counted."""


def estimate_size(paths: Sequence[str], data_config: DataConfig, *, coverage: float) -> DataSize:
    """Return the size of the files together; lines that hold no dialogue are left out.

    ``coverage`` is tokenizer.character_coverage.
    """
    sample = _Sample(data_config)
    num_lines, is_exact = 0.0, True
    for path in paths:
        num, part = _count_lines(path, sample)
        num_lines += num / part
        is_exact = is_exact and part == 1
    share = sample.num_dialogues / sample.num_lines if sample.num_lines else 0.0
    held_back = sample.num_held_back() / sample.num_lines if sample.num_lines else 0.0
    scale = num_lines / sample.num_lines if sample.num_lines else 0.0
    return DataSize(
        num_dialogues=round(num_lines * share),
        num_bytes=round(sample.num_text_bytes * scale),
        num_characters=sample.num_characters(coverage),
        long_dialogue=sample.long_dialogue(),
        longest_turn=sample.longest_turn,
        is_exact=is_exact and num_lines == sample.num_lines,
        num_held_back=round(num_lines * held_back),
    )


def _count_lines(path: str, sample: _Sample) -> tuple[int, float]:
    """Count the lines of the part of a file that is read; also return its share of the file."""
    num_lines = num_bytes = end = 0
    for block in iter_blocks(path, _ignore):
        if num_bytes >= _COUNTED_BYTES:
            return num_lines, end / max(end, Path(path).stat().st_size)
        sample.read(block.lines())
        num_lines += len(block.numbers)
        num_bytes += len(block.data)
        end = block.end
    return num_lines, 1.0


def _ignore(problem: Problem) -> None:
    """Leave a problem to `validate-data` and `train`."""


class _Sample:
    """Counts what the first dialogues contain."""

    def __init__(self, data_config: DataConfig) -> None:
        self._data_config = data_config
        self.num_lines = 0
        self.num_dialogues = 0
        self.num_text_bytes = 0
        self.longest_turn = 0
        self._openings: list[int] = []
        self._num_bytes = 0
        self._characters: Counter[str] = Counter()
        self._sizes: list[int] = []

    def read(self, lines: Sequence[bytes]) -> None:
        """Read lines as dialogues until the sample is large enough."""
        for line in lines:
            if self._num_bytes >= _READ_BYTES:
                return
            self._num_bytes += len(line)
            self.num_lines += 1
            reading = read_value(decode(line, _ignore), self._data_config, _ignore)
            if reading is not None:
                self._add([turn for _, turn in reading.turns])

    def _add(self, turns: Sequence[Turn]) -> None:
        if self._data_config.validation_split is not None:
            self._openings.append(hash_opening(turns))
        texts = [turn.text for turn in turns]
        sizes = [len(text.encode("utf-8", "replace")) for text in texts]
        self.num_dialogues += 1
        self.num_text_bytes += sum(sizes)
        self._sizes.append(sum(sizes))
        self.longest_turn = max(self.longest_turn, *sizes, 0)
        for text in texts:
            self._characters.update(text)

    def num_held_back(self) -> int:
        """Return how many dialogues `data.validation_split` holds back; 0 if it cannot."""
        share = self._data_config.validation_split
        if share is None or len(set(self._openings)) < 2:
            return 0
        return sum(map(find_split(self._openings, share).is_held_back, self._openings))

    def num_characters(self, coverage: float) -> int:
        """Return how many different characters cover that share of the text."""
        missing = (1 - coverage) * self._characters.total()
        rarest_first = sorted(self._characters.values())
        uncovered = list(accumulate(rarest_first))
        return len(rarest_first) - bisect_right(uncovered, missing)

    def long_dialogue(self) -> int:
        """Return the bytes that 95 % of the dialogues do not exceed."""
        return sorted(self._sizes)[(len(self._sizes) - 1) * 95 // 100] if self._sizes else 0
