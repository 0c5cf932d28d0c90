"""A run trains on the data that it hashed, even if a data file changes during the preparation."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import os

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convo_cli.data import decompress, reader
from convo_cli.errors import DataError
from convo_cli.prepare.cache import Cache
from convo_cli.prepare.inputs import Inputs
from convo_cli.prepare.prepare import prepare_data
from convo_cli.prepare.prepared_text import build_encoder
from convo_cli.runs.provenance.data_files import with_hashed_data
from tests.conftest import SAMPLE_DATA

_LINES = (SAMPLE_DATA / "train.jsonl").read_bytes().splitlines(keepends=True)
A, B = b"".join(_LINES[:60]), b"".join(_LINES[60:100])
assert len(A) > len(B)
# Dialogues that preparing A reads: for the tokenizer and for training, and for validation.
_NUM_READ = 2 * 60 + 25


def in_place(path, content):
    """Other bytes of the same length in the same file, with the time of change set back."""
    status = path.stat()
    with path.open("r+b") as file:
        file.write(content.ljust(status.st_size, b"\n")[: status.st_size])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def rename(path, content):
    other = path.with_name("other")
    other.write_bytes(content)
    other.rename(path)


def rewrite(path, content):
    """The same file, empty first, so that a reader may see a part."""
    path.write_bytes(content)


def half_written(path, content):
    """The beginning, up to the middle of a line, while another program still writes the rest."""
    path.write_bytes(content[: len(content) // 2])


def append(path, content):
    with path.open("ab") as file:
        file.write(content)


CHANGES = [in_place, rename, rewrite, half_written, append]
PACKINGS = {
    ".jsonl": bytes,
    ".jsonl.gz": lambda data: gzip.compress(data, 1, mtime=0),
    ".jsonl.zst": zstandard.compress,
}


@pytest.fixture
def small_buffers(monkeypatch):
    """A read from the disk is a few lines, as of a file that is much larger than the buffer."""
    for module in (decompress, reader):
        monkeypatch.setattr(module, "BUFFER_BYTES", 2048)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def columns(store):
    return [
        getattr(store, name)[:].tolist()
        for name in ("input_ids", "targets", "offsets", "dialogue_of")
    ]


def prepare(config, home, events):
    cache = Cache(home, events.append)

    def use(files):
        inputs = Inputs(config, files, cache, events.append)
        text = build_encoder(inputs)
        data = prepare_data(inputs, text.encoder)
        return files.train[0].sha256, text.spiece, columns(data.train)

    return with_hashed_data(config.data, use, events.append)


@pytest.fixture(scope="module")
def expected(make_config, tmp_path_factory):
    """Return what is prepared from unchanged content; each content is prepared once."""
    made = {}

    def of(content, suffix):
        key = sha256(content)
        if key not in made:
            folder = tmp_path_factory.mktemp("expected")
            path = folder / f"train{suffix}"
            path.write_bytes(content)
            try:
                made[key] = prepare(config_of(make_config, folder, path), folder / "runs", [])
            except DataError:
                made[key] = None
        return made[key]

    return of


def config_of(make_config, folder, path):
    return make_config(folder, data={"train": str(path)}, tokenizer={"vocab_size": 600})


@pytest.mark.usefixtures("small_buffers")
@pytest.mark.parametrize("change", CHANGES)
@given(suffix=st.sampled_from(sorted(PACKINGS)), number=st.integers(0, _NUM_READ))
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_run_has_the_hash_of_the_data_it_is_trained_on(
    change, suffix, number, expected, make_config, tmp_path_factory, monkeypatch
):
    folder = tmp_path_factory.mktemp("changed")
    path = folder / f"train{suffix}"
    before, other = PACKINGS[suffix](A), PACKINGS[suffix](B)
    path.write_bytes(before)
    config = config_of(make_config, folder, path)
    with monkeypatch.context() as patch:
        read_line, counter = reader._read_line, itertools.count()

        def counted(*arguments):
            now = next(counter)
            if now == number:
                change(path, other)
            elif now == number + 5 and change is half_written:
                rewrite(path, other)
            return read_line(*arguments)

        patch.setattr(reader, "_read_line", counted)
        try:
            found = prepare(config, folder / "runs", [])
        except DataError:
            found = None
    now = path.read_bytes()
    if found is None:
        assert expected(now, suffix) is None, "only data that cannot be trained on is refused"
    else:
        assert found[0] in (sha256(before), sha256(now))
        assert found == expected(before if found[0] == sha256(before) else now, suffix)
    path.write_bytes(before)
    assert prepare(config, folder / "runs", []) == expected(before, suffix), (
        "the cache has nothing else under this hash"
    )
