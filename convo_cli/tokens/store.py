"""Token store: encoded examples in flat arrays, which training reads instead of dialogues.

The arrays of a few dialogues are built in memory, those of many are appended to files. A store that
is opened from files has only the numbers per example and per dialogue in memory, and reads tokens
when needed. Files are not mapped, because a read from a truncated mapped file ends the process with
SIGBUS.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from convo_cli.data.dialogue import Dialogue
from convo_cli.data.fingerprint import fingerprint
from convo_cli.errors import CheckpointError

NO_TARGET, ASSISTANT_TARGET, USER_TARGET = 0, 1, 2
"""Target kinds of tokens; train_on and the curriculum decide whether user targets count."""

Opener: TypeAlias = Callable[[str, int], int]
"""Opens a path with flags, like `os.open`."""

_COUNTED = 1 << 20  # tokens counted at once
_READS_PER_CHECK = 32
"""Reads per check for writes in place; a check costs as much as a read.

Every read notices a truncated file.
"""
_DIALOGUE = np.dtype(
    [
        ("file", "<i4"),
        ("line", "<i8"),
        ("fingerprint", "<u8"),
        ("num_tokens", "<i8"),
        ("is_split", "?"),
    ]
)
_TOKENS: dict[str, np.dtype[Any]] = {"input_ids": np.dtype("<i4"), "targets": np.dtype("u1")}
"""Columns with one number per token, which may be larger than memory."""
_COLUMNS: dict[str, np.dtype[Any]] = {
    "offsets": np.dtype("<i8"),
    "dialogue_of": np.dtype("<i8"),
    "dialogues": _DIALOGUE,
}


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


class FileColumn:
    """Numbers in a file, read by slices; CheckpointError if the file changed since it was opened.

    A change that resets the time of the last change is not noticed.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any], opener: Opener = os.open) -> None:
        self._path, self._dtype = path, dtype
        self._file = opener(str(path), os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        self._state = self._read_state()
        self._num_reads = 0
        self._length, rest = divmod(self._state[0], dtype.itemsize)
        if rest:
            size = f"{self._state[0]:,} bytes"
            raise self._error(f"the size is not a multiple of {dtype.itemsize} bytes ({size})")

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice) -> NDArray[Any]:
        begin, end, _ = part.indices(self._length)
        size = (end - begin) * self._dtype.itemsize
        self._num_reads += 1
        try:
            data = os.pread(self._file, size, begin * self._dtype.itemsize)
            if len(data) != size or (
                self._num_reads % _READS_PER_CHECK == 0 and self._read_state() != self._state
            ):
                sizes = f"{self._state[0]:,} bytes before, now {self._read_state()[0]:,}"
                raise self._error(f"the file changed while it was in use ({sizes})")
        except OSError as error:
            raise self._error(f"the file cannot be read ({error.strerror})") from error
        return np.frombuffer(data, self._dtype)

    def _read_state(self) -> tuple[int, int]:
        status = os.fstat(self._file)
        return status.st_size, status.st_mtime_ns

    def _error(self, what: str) -> CheckpointError:
        return CheckpointError(
            f"{self._path}: {what}",
            hint="start again, or `convo resume RUN_DIR` if the run has begun; the file is then "
            "checked and created again",
        )


_Tokens: TypeAlias = NDArray[Any] | FileColumn


@dataclass(frozen=True)
class TokenStore:
    """N examples of D dialogues in flat arrays; ``offsets[i]:offsets[i + 1]`` is example i."""

    input_ids: _Tokens
    targets: _Tokens
    offsets: NDArray[np.int64]  # (N + 1,)
    dialogue_of: NDArray[np.int64]  # (N,) the dialogue of each example
    dialogues: NDArray[np.void]
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
        lengths, dialogue_of, dialogues = [0], list[int](), list[tuple[int, int, int, int, bool]]()
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
            np.cumsum(lengths, dtype=np.int64),
            np.array(dialogue_of, np.int64),
            np.array(dialogues, _DIALOGUE),
        )

    @classmethod
    def open(cls, folder: Path, opener: Opener = os.open) -> TokenStore:
        """Open the files of `write`; an example is read from them when it is needed.

        Their content is not checked here: see `convo_cli.tokens.store_check`.
        """
        input_ids, targets = (
            FileColumn(folder / name, dtype, opener) for name, dtype in _TOKENS.items()
        )
        columns = (
            np.array(FileColumn(folder / name, dtype, opener)[:])
            for name, dtype in _COLUMNS.items()
        )
        return cls(input_ids, targets, *columns)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Example:
        part = slice(self.offsets[index], self.offsets[index + 1])
        return Example(self.input_ids[part], self.targets[part])

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

    @cached_property
    def lengths(self) -> NDArray[np.int64]:  # (N,)
        return np.diff(self.offsets)

    def targets_per_example(self, kind: int) -> NDArray[np.int64]:
        """Return the number of targets of this kind, (N,); a store in files is read in parts."""
        before = np.zeros(len(self) + 1, np.int64)  # targets before each offset
        num_targets = 0
        for begin in range(0, len(self.targets), _COUNTED):
            counts = np.cumsum(self.targets[begin : begin + _COUNTED] == kind)
            first, stop = np.searchsorted(self.offsets, [begin + 1, begin + len(counts) + 1])
            before[first:stop] = num_targets + counts[self.offsets[first:stop] - begin - 1]
            num_targets += int(counts[-1])
        return np.diff(before)

    def num_targets(self, kind: int) -> int:
        """Return the number of targets of this kind in all examples."""
        return int(self.targets_per_example(kind).sum())

    def where(self, index: int, files: Sequence[str]) -> str:
        """Return the file and line of dialogue ``index``; ``files`` are those given to `build`."""
        dialogue = self.dialogues[index]
        return f"{files[dialogue['file']]}:{dialogue['line']}"


def write(parts: Iterable[TokenStore], folder: Path) -> None:
    """Append small stores to the files of a folder one by one, so that only one is in memory."""
    num_tokens = num_dialogues = 0
    with ExitStack() as stack:
        files = {
            name: stack.enter_context((folder / name).open("wb")) for name in (*_TOKENS, *_COLUMNS)
        }
        files["offsets"].write(np.zeros(1, np.int64).tobytes())
        for part in parts:
            files["input_ids"].write(part.input_ids[:].tobytes())
            files["targets"].write(part.targets[:].tobytes())
            files["offsets"].write((part.offsets[1:] + num_tokens).tobytes())
            files["dialogue_of"].write((part.dialogue_of + num_dialogues).tobytes())
            files["dialogues"].write(part.dialogues.tobytes())
            num_tokens += part.num_tokens
            num_dialogues += len(part.dialogues)
