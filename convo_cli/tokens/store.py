"""Token store: encoded examples in flat arrays, which training reads instead of dialogues.

The arrays of a few dialogues are built in memory, those of many are appended to files. A store that
is opened from files has only two numbers per example in memory, 8 bytes, and reads the tokens and
the records of the dialogues when needed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convo_cli.data.dialogue import Dialogue
from convo_cli.data.fingerprint import fingerprint
from convo_cli.tokens import store_columns
from convo_cli.tokens.store_columns import Column, Opener, blocks_of

NO_TARGET, ASSISTANT_TARGET, USER_TARGET = 0, 1, 2
"""Target kinds of tokens; train_on and the curriculum decide whether user targets count."""

_COUNTED = 1 << 17  # tokens counted at once
_INDEXED = 256
"""Examples of a block. The first token of each block is stored; that of an example is a sum."""
_DIALOGUE = np.dtype(
    [
        ("file", "<i4"),
        ("line", "<i8"),
        ("fingerprint", "<u8"),
        ("num_tokens", "<i8"),
        ("is_split", "?"),
    ]
)
COLUMNS: dict[str, np.dtype[Any]] = {
    "input_ids": np.dtype("<i4"),
    "targets": np.dtype("u1"),
    "offsets": np.dtype("<i8"),
    "dialogue_of": np.dtype("<i8"),
    "dialogues": _DIALOGUE,
}
"""The files of a store, and the type of their numbers or records."""


@dataclass(frozen=True, slots=True)
class Example:
    """A sequence to train on: a dialogue, or a window of a long one."""

    input_ids: NDArray[np.int32]  # (T,)
    targets: NDArray[np.uint8]  # (T,) target kinds; position 0 is never a target
    num_repeated: int = 0
    """Tokens at the start (system turn and context) that an earlier window contains too."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A dialogue as examples."""

    examples: Sequence[Example]
    num_tokens: int
    """Tokens of the whole dialogue before it was cut into windows; 0 if it is left out."""
    is_split: bool = False
    """True if a turn was longer than any window and was cut."""


LEFT_OUT = Encoded((), 0)


@dataclass(frozen=True)
class TokenStore:
    """N examples of D dialogues in flat arrays; the tokens of the examples follow each other."""

    input_ids: Column
    targets: Column
    lengths: NDArray[np.int32]  # (N,) tokens of each example
    dialogue_of: NDArray[np.int32]  # (N,) the dialogue of each example
    dialogues: Column
    """(D,) records: file (the index of its name), line, fingerprint, num_tokens and is_split."""

    @classmethod
    def build(
        cls, encoded: Iterable[tuple[Dialogue, Encoded]], files: Sequence[str] = ()
    ) -> TokenStore:
        """Build a store from the examples of each dialogue; examples without a target are left out.

        ``files`` are all files that the dialogues may come from.
        """
        ids: list[NDArray[np.int32]] = [np.empty(0, np.int32)]
        targets: list[NDArray[np.uint8]] = [np.empty(0, np.uint8)]
        lengths, dialogue_of, dialogues = list[int](), list[int](), list[tuple[Any, ...]]()
        number_of = {file: number for number, file in enumerate(files)}
        for dialogue, one in encoded:
            for example in one.examples:
                if example.targets.any():
                    ids.append(example.input_ids)
                    targets.append(example.targets)
                    lengths.append(len(example.input_ids))
                    dialogue_of.append(len(dialogues))
            place = (number_of.get(dialogue.file, -1), dialogue.line)
            dialogues.append((*place, fingerprint(dialogue.turns), one.num_tokens, one.is_split))
        return cls(
            np.concatenate(ids),
            np.concatenate(targets),
            np.array(lengths, np.int32),
            np.array(dialogue_of, np.int32),
            np.array(dialogues, _DIALOGUE),
        )

    @classmethod
    def open(cls, folder: Path, opener: Opener = os.open) -> TokenStore:
        """Open the files of `store_writer`; an example is read from them when it is needed.

        CheckpointError if the offsets of the examples are impossible. `require_valid_store` checks
        the rest of their content.
        """
        files = {
            name: store_columns.FileColumn(folder / name, dtype, opener)
            for name, dtype in COLUMNS.items()
        }
        return cls(
            files["input_ids"],
            files["targets"],
            store_columns.read_lengths(files["offsets"], len(files["input_ids"])),
            store_columns.read_compact(files["dialogue_of"]),
            files["dialogues"],
        )

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Example:
        part = self._tokens_of(range(index, index + 1))
        return Example(self.input_ids[part], self.targets[part])

    def part(self, begin: int, end: int) -> TokenStore:
        """Return the dialogues from ``begin`` to before ``end`` as a store in memory."""
        own = self.examples_between(begin, end)
        tokens, examples = self._tokens_of(own), slice(own.start, own.stop)
        return TokenStore(
            self.input_ids[tokens],
            self.targets[tokens],
            self.lengths[examples],
            self.dialogue_of[examples] - np.int32(begin),
            self.dialogues[begin:end],
        )

    def _tokens_of(self, examples: range) -> slice:
        if not examples:
            return slice(0, 0)
        block = examples.start // _INDEXED
        before = self.lengths[block * _INDEXED : examples.start].sum(dtype=np.int64)
        begin = int(self._block_starts[block] + before)
        size = self.lengths[examples.start : examples.stop].sum(dtype=np.int64)
        return slice(begin, begin + int(size))

    @cached_property
    def _block_starts(self) -> NDArray[np.int64]:
        """Return the number of tokens before each block of examples."""
        blocks = np.arange(0, len(self), _INDEXED)
        sizes = np.add.reduceat(self.lengths, blocks, dtype=np.int64)
        return np.asarray(np.cumsum(sizes) - sizes)

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Return the first token of each example and the end of the last, (N + 1,); not stored."""
        return np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])

    @property
    def num_tokens(self) -> int:
        return len(self.input_ids)

    @property
    def num_dialogues(self) -> int:
        """Return the number of dialogues that are not left out."""
        return int(np.count_nonzero(self.dialogues["num_tokens"]))

    @property
    def num_split(self) -> int:
        """Return the number of dialogues with a turn that was cut."""
        return int(np.count_nonzero(self.dialogues["is_split"]))

    @property
    def kept_fingerprints(self) -> NDArray[np.uint64]:
        """Return the fingerprint of each dialogue that is not left out."""
        blocks = (
            records["fingerprint"][records["num_tokens"] > 0]
            for _, records in blocks_of(self.dialogues)
        )
        return np.concatenate([np.empty(0, np.uint64), *blocks])

    @cached_property
    def file_stretches(self) -> list[tuple[int, int]]:
        """Return file and number of examples of each stretch of examples from one file.

        A file that an old config lists twice may have two.
        """
        found: list[tuple[int, int]] = []
        for begin, records in blocks_of(self.dialogues):
            own = self.examples_between(begin, begin + len(records))
            files = records["file"][self.dialogue_of[own.start : own.stop] - begin]
            ends = np.flatnonzero(np.diff(files, append=-2)) + 1
            for file, size in zip(files[ends - 1].tolist(), np.diff(ends, prepend=0), strict=True):
                before = found.pop()[1] if found and found[-1][0] == file else 0
                found.append((file, before + int(size)))
        return found

    def files_of(self, examples: NDArray[np.integer] | int) -> NDArray[np.int64]:
        """Return the number of the file of each of these examples."""
        files, sizes = np.array(self.file_stretches).T
        return np.asarray(files[np.searchsorted(np.cumsum(sizes), examples, side="right")])

    def examples_between(self, begin: int, end: int) -> range:
        """Return the examples of the dialogues from ``begin`` to before ``end``."""
        # Bounds of another type would make NumPy convert the whole array.
        return range(*map(int, np.searchsorted(self.dialogue_of, np.array([begin, end], np.int32))))

    def token_blocks(self) -> Iterator[tuple[slice, slice]]:
        """Yield slices of examples and of their tokens, bounded unless one example is longer."""
        first = token = 0
        while first < len(self):
            ends = np.cumsum(self.lengths[first : first + _COUNTED // 16], dtype=np.int64)
            num = max(1, int(np.searchsorted(ends, _COUNTED, side="right")))
            size = int(ends[num - 1])
            yield slice(first, first + num), slice(token, token + size)
            first, token = first + num, token + size

    def targets_per_example(self, kind: int) -> NDArray[np.int32]:
        """Return the number of targets of this kind, (N,); a store in files is read in parts."""
        counts = np.zeros(len(self), np.int32)
        for examples, tokens in self.token_blocks():
            starts = np.cumsum(self.lengths[examples]) - self.lengths[examples]
            is_counted = (self.targets[tokens] == kind).view(np.uint8)
            counts[examples] = np.add.reduceat(is_counted, starts, dtype=np.int32)
        return counts

    def num_targets(self, kind: int) -> int:
        """Return the number of targets of this kind in all examples."""
        blocks = (self.targets[tokens] for _, tokens in self.token_blocks())
        return sum(int(np.count_nonzero(block == kind)) for block in blocks)

    def where(self, index: int, files: Sequence[str]) -> str:
        """Return the file and line of dialogue ``index``; ``files`` are those given to `build`."""
        dialogue = self.dialogues[index]
        return f"{files[dialogue['file']]}:{dialogue['line']}"
