"""Files with a known SHA-256: every byte is hashed, also if a reader stops before the end."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
from itertools import islice
from typing import NamedTuple

import pytest
import zstandard

from convo_cli.config.schema import DataConfig
from convo_cli.data.decompress import BUFFER_BYTES
from convo_cli.data.reader import read_dialogues
from convo_cli.data.unchanged import HashingFile, read_unchanged
from convo_cli.errors import DataError, FileChangedError, UsageError

CONFIG = DataConfig(train=("unused",))
CONTENT = b"".join(b'["line %d", "%s"]\n' % (number, b"yes " * 50) for number in range(4000))
assert len(CONTENT) > 3 * BUFFER_BYTES


class Known(NamedTuple):
    path: str
    sha256: str


@pytest.fixture(
    params=[(".jsonl", bytes), (".gz", gzip.compress), (".zst", zstandard.compress)],
    ids=lambda pair: pair[0],
)
def known(request, tmp_path):
    suffix, pack = request.param
    path = tmp_path / f"data{suffix}"
    path.write_bytes(pack(CONTENT))
    return Known(str(path), hashlib.sha256(path.read_bytes()).hexdigest())


def changed(known):
    return known._replace(sha256="0" * 64)


def test_all_dialogues_of_an_unchanged_file_are_read(known):
    with read_unchanged([known, known], CONFIG) as dialogues:
        read = list(dialogues)
    assert read == list(read_dialogues([known.path, known.path], CONFIG))


@pytest.mark.parametrize("number", [1, 100, 4000])
def test_a_reader_that_stops_early_gets_the_error_too(known, number):
    with read_unchanged([known], CONFIG) as dialogues:
        assert len(list(islice(dialogues, number))) == number
    with (
        pytest.raises(FileChangedError, match=f"SHA-256 {'0' * 64} before, now {known.sha256}"),
        read_unchanged([changed(known)], CONFIG) as dialogues,
    ):
        assert len(list(islice(dialogues, number))) == number


def test_files_that_were_not_reached_are_not_read(known):
    with read_unchanged([known, changed(known)], CONFIG) as dialogues:
        next(dialogues)


def read_one_and_raise(known, error):
    with read_unchanged([known], CONFIG) as dialogues:
        next(dialogues)
        raise error


@pytest.mark.parametrize("error", [DataError, UsageError])
def test_a_changed_file_replaces_an_error_that_it_may_have_caused(known, error):
    with pytest.raises(FileChangedError):
        read_one_and_raise(changed(known), error("half a line"))
    with pytest.raises(error, match="half a line"):
        read_one_and_raise(known, error("half a line"))


def test_an_interrupt_does_not_wait_for_hashes(known, monkeypatch):
    monkeypatch.setattr(HashingFile, "sha256", None)
    with pytest.raises(KeyboardInterrupt):
        read_one_and_raise(changed(known), KeyboardInterrupt())


def test_every_file_is_closed_at_the_end_of_the_block(known):
    before = len(os.listdir("/proc/self/fd"))
    with read_unchanged([known, known], CONFIG) as dialogues:
        next(dialogues)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("size", [0, 1, BUFFER_BYTES, len(CONTENT)])
def test_the_whole_file_is_hashed_even_if_a_part_was_read(tmp_path, size):
    (tmp_path / "data").write_bytes(CONTENT)
    with HashingFile(str(tmp_path / "data")) as raw:
        stream = io.BufferedReader(raw)
        stream.read(size)
        assert raw.sha256() == raw.sha256() == hashlib.sha256(CONTENT).hexdigest()
        stream.detach()


def test_bytes_added_after_the_end_was_read_are_not_hashed(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(b"one")
    with HashingFile(str(path)) as raw:
        stream = io.BufferedReader(raw)
        assert (stream.read(10), stream.read(10)) == (b"one", b"")
        with path.open("ab") as file:
            file.write(b"two")
        assert raw.sha256() == hashlib.sha256(b"one").hexdigest()
        stream.detach()
