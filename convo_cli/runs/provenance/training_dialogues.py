"""training-dialogues.hashes of a run: a hash of each dialogue that the run was trained on.

`convo evaluate` counts with it how many dialogues of a file the model has seen. The hashes cannot
be turned back into text, but anyone who has a dialogue can find out if it is among them. So the
file stays in the run directory and is part of no checkpoint and no export. Each hash is that of a
`convo_cli.data.fingerprint.fingerprint`, with a random key of the run, so that the files of two
runs have no hash in common.

Layout: 16 bytes that name the format, the key of 16 bytes, the hashes of 16 bytes each in ascending
order, and the SHA-256 of all bytes before it.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convo_cli.data.fingerprint import is_among
from convo_cli.errors import CheckpointError
from convo_cli.events import Emit, Notice
from convo_cli.runs.directory import RunDirectory
from convo_cli.storage.atomic import writing
from convo_cli.storage.files import UnsafeFileError, read_file
from convo_cli.tokens.store_columns import blocks_of

_FORMAT = b"convo-trained-1\n"
_HASH = np.dtype("S16")
_DIGEST_BYTES = hashlib.sha256().digest_size


@dataclass(frozen=True)
class TrainingDialogues:
    """The dialogues that a run was trained on, as hashes."""

    key: bytes
    hashes: NDArray[np.bytes_]  # (N,) ascending, each once

    def count(self, fingerprints: NDArray[np.uint64]) -> int:
        """Return how many of these dialogues the run was trained on; repeated ones count again."""
        return sum(
            int(np.count_nonzero(is_among(_hashes(block, self.key), self.hashes)))
            for _, block in blocks_of(fingerprints)
        )

    def with_more(self, fingerprints: NDArray[np.uint64]) -> TrainingDialogues:
        """Return these dialogues and those with the given fingerprints."""
        blocks = (_hashes(block, self.key) for _, block in blocks_of(fingerprints))
        more = [block[~is_among(block, self.hashes)] for block in blocks]
        if not any(map(len, more)):
            return self
        hashes = np.concatenate([self.hashes, *more])
        del more
        hashes.sort()  # in place, because `numpy.union1d` needs four times the memory
        is_first = np.append(True, hashes[1:] != hashes[:-1])
        return TrainingDialogues(self.key, hashes if is_first.all() else hashes[is_first])


def record_training_dialogues(
    run: RunDirectory, fingerprints: NDArray[np.uint64], earlier: RunDirectory, emit: Emit
) -> None:
    """Write the dialogues of this start, and those that the ``earlier`` run was trained on.

    The earlier run is the run itself in a resume, and the parent of a fork. Its file is written
    again from the present data if it is damaged, with a notice.
    """
    try:
        known = read_training_dialogues(earlier)
    except CheckpointError as error:
        emit(Notice(f"{error.message}; written again from the present data", is_warning=True))
        known = None
    before = known or TrainingDialogues(secrets.token_bytes(len(_FORMAT)), np.empty(0, _HASH))
    now = before.with_more(fingerprints)
    is_complete = known is not None and len(now.hashes) == len(known.hashes)
    if is_complete and earlier.path == run.path:
        return
    blocks = (block.tobytes() for _, block in blocks_of(now.hashes))
    digest = hashlib.sha256()
    with writing(run.training_dialogues) as file:
        for part in chain((_FORMAT, now.key), blocks):
            digest.update(part)
            file.write(part)
        file.write(digest.digest())


def read_training_dialogues(run: RunDirectory) -> TrainingDialogues | None:
    """Read the file of a run; None if it has none, CheckpointError if the file is damaged."""
    path = run.training_dialogues
    try:
        content = memoryview(read_file(path, limit=path.lstat().st_size))
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = f"it is {error.kind}" if isinstance(error, UnsafeFileError) else error.strerror
        raise CheckpointError(f"{path}: cannot be read ({reason})") from error
    head, body, digest = len(_FORMAT), content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    num_bytes, rest = len(body) - 2 * head, (len(body) - 2 * head) % _HASH.itemsize
    if num_bytes < 0 or rest or hashlib.sha256(body).digest() != digest or body[:head] != _FORMAT:
        raise CheckpointError(f"{path}: damaged (its SHA-256 is not the one at its end)")
    hashes = np.frombuffer(body[2 * head :], _HASH)
    return TrainingDialogues(bytes(body[head : 2 * head]), hashes)


def _hashes(fingerprints: NDArray[Any], key: bytes) -> NDArray[np.bytes_]:
    digests = (
        hashlib.blake2b(one.to_bytes(8, "little"), key=key, digest_size=_HASH.itemsize).digest()
        for one in map(int, fingerprints)
    )
    return np.fromiter(digests, _HASH, len(fingerprints))
