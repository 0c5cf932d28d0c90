"""Encoding gives the same store and the same problems, however its work is cut."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from convo_cli.data import dialogue
from convo_cli.data.dialogue import Dialogue, Turn, chunks
from convo_cli.events import Notice, Progress
from convo_cli.prepare import encode as encode_module
from convo_cli.prepare import stored
from convo_cli.prepare.cache import NAME, Cache
from convo_cli.prepare.inputs import Inputs
from convo_cli.prepare.preflight import PreflightError
from convo_cli.prepare.prepare import prepare_data
from convo_cli.runs.provenance.data_files import read_data_files
from convo_cli.text.templates.template import TEMPLATES
from convo_cli.worker_processes import call_in_workers
from tests.families import FAMILIES, family_tokenizer, native_encoder
from tests.forks import run_fork, start_fork
from tests.memory import with_peak

SHORT = ["Hi", "Hello!", "How are you?", "Fine."]
LONG = [f"Words and words {k}, and {'more ' * (k % 7)}words." for k in range(60)]
WORDS = ["a", "bb", "ccc", "dddd", "eeeee"]
UNANSWERED = ["Is anybody here?"]


@pytest.fixture
def write(tmp_path):
    def write_lines(*dialogues):
        path = tmp_path / "data.jsonl"
        path.write_text("".join(json.dumps(turns) + "\n" for turns in dialogues))
        return str(path)

    return write_lines


class Stopped(BaseException):
    """Ends an encoding like a signal."""


@pytest.fixture
def encode(tiny_config, make_encoder, tmp_path):
    """Encode a file and return the bytes of its store; the notices go to ``said``.

    With ``stop_after``, the encoding is interrupted after so many dialogues.
    """

    def encode_file(path, *, said=None, stop_after=None, split=None, **dialogue_config):
        data = {"train": path, "validation": [], "validation_split": split}
        config = tiny_config(data=data, dialogue=dialogue_config)

        def emit(event):
            if isinstance(event, Notice) and said is not None:
                said.append(event.message)
            if stop_after is not None and isinstance(event, Progress) and event.done >= stop_after:
                raise Stopped

        cache = Cache(tmp_path / "runs", emit)
        inputs = Inputs(config, read_data_files(config.data), cache, emit)
        encoder = make_encoder(max_length=config.dialogue.max_length)
        prepare_data(inputs, encoder, max_problems=100)
        folders = list((tmp_path / "runs" / NAME).glob("tokens-*[0-9a-f]"))
        files = {file.name: file.read_bytes() for folder in folders for file in folder.iterdir()}
        for folder in folders:
            shutil.rmtree(folder)
        return files

    return encode_file


@pytest.fixture
def unfinished(tmp_path):
    """Return the folders of unfinished encodings."""
    return lambda: list((tmp_path / "runs" / NAME).glob("*.partial"))


@pytest.fixture
def recording(monkeypatch):
    """Cut the work into small chunks, and record each of them."""
    monkeypatch.setattr(dialogue, "_CHUNK_CHARACTERS", 500)
    monkeypatch.setattr(stored, "_SECONDS_PER_RECORD", 0)


@pytest.mark.parametrize("num_characters", [1, 500, 3000])
def test_the_size_of_a_chunk_changes_no_byte_of_the_store(
    write, encode, monkeypatch, num_characters
):
    path = write(*[SHORT, LONG, SHORT[:2]] * 20)
    whole = encode(path, max_length=64)
    monkeypatch.setattr(dialogue, "_CHUNK_CHARACTERS", num_characters)
    assert encode(path, max_length=64) == whole


@pytest.mark.parametrize("num_characters", [1, 500])
def test_the_size_of_a_chunk_does_not_change_the_order_of_problems(
    write, encode, monkeypatch, num_characters
):
    def problems():
        with pytest.raises(PreflightError) as caught:
            encode(path, max_length=16)
        return caught.value.message, caught.value.problems

    path = write(SHORT, UNANSWERED, *[["Hi", "word " * 40], UNANSWERED, SHORT] * 5)
    whole = problems()
    assert [one.line for one in whole[1]] == [2, 4, 7, 10, 13, 16, 3, 6, 9, 12, 15]
    monkeypatch.setattr(dialogue, "_CHUNK_CHARACTERS", num_characters)
    assert problems() == whole


def test_a_chunk_has_a_bounded_number_of_characters_unless_one_dialogue_has_more(monkeypatch):
    monkeypatch.setattr(dialogue, "_CHUNK_CHARACTERS", 1000)
    lengths = [10, 200, 3000, 10, 990, 10, *[1] * 30]
    every = [Dialogue((Turn("user", "a" * length),), line) for line, length in enumerate(lengths)]
    found = list(chunks(every))
    assert [one for chunk in found for one in chunk] == every
    sizes = [[len(one.turns[0].text) + 64 for one in chunk] for chunk in found]
    assert all(len(chunk) == 1 or sum(chunk) <= 1000 for chunk in sizes)
    assert all(sum(one) + two[0] > 1000 for one, two in pairwise(sizes))


def test_a_list_of_long_dialogues_is_encoded_in_the_memory_of_one_chunk(make_encoder, monkeypatch):
    def peak(num_dialogues):
        every = [Dialogue(turns, line) for line in range(num_dialogues)]
        return with_peak(lambda: encoder.encode_all(every))[1]

    monkeypatch.setattr(dialogue, "_CHUNK_CHARACTERS", 20_000)
    encoder = make_encoder(max_length=4096)
    turns = tuple(Turn(("user", "assistant")[k % 2], f"word {k}") for k in range(150))
    (example,) = encoder.encode([Dialogue(turns)])[0]
    num_result_bytes = 5 * len(example.input_ids)  # int32 and a byte for each token
    assert peak(20) < 2 * peak(1) + 20 * 2 * num_result_bytes


# Interruptions

MIXED = [
    SHORT,
    LONG,
    SHORT[:2],
    ["Hi", "word " * 40],
    *[[f"Hi {k}", f"Hello {k}!"] for k in range(30)],
]
CONTINUING = "continuing an interrupted encoding after"


@pytest.mark.parametrize("long_turns", ["split", "drop"])
@pytest.mark.parametrize("stops", [(1,), (2, 9), (4, 4, 20), (34,)])
def test_an_interrupted_encoding_continues_to_the_same_bytes(
    write, encode, unfinished, recording, stops, long_turns
):
    path, options = write(*MIXED), {"max_length": 32, "long_turns": long_turns}
    whole = encode(path, **options)
    for stop_after in stops:
        with pytest.raises(Stopped):
            encode(path, stop_after=stop_after, **options)
    said = []
    assert encode(path, said=said, **options) == whole
    (notice,) = [one for one in said if CONTINUING in one]
    assert 0 < int(notice.split()[-2]) <= len(MIXED)
    assert not unfinished()


@pytest.mark.parametrize("stop_after", [3, 12, 25])
def test_an_interruption_does_not_change_what_is_refused_or_counted(
    write, encode, unfinished, recording, stop_after
):
    def problems(**options):
        with pytest.raises(PreflightError) as caught:
            encode(path, max_length=16, **options)
        return caught.value.message, caught.value.problems

    path = write(*MIXED, ["Hi", "word " * 30])
    whole = problems()
    shutil.rmtree(Path(path).parent / "runs" / NAME)  # with the refused store, which is also used
    with pytest.raises(Stopped):
        encode(path, max_length=16, stop_after=stop_after)
    said = []
    assert problems(said=said) == whole
    assert [one for one in said if CONTINUING in one]
    assert not unfinished()


def test_a_split_continues_on_its_own_side(write, encode, recording):
    path = write(*MIXED)
    whole = encode(path, split=0.4, max_length=32, long_turns="split")
    with pytest.raises(Stopped):
        encode(path, split=0.4, max_length=32, long_turns="split", stop_after=8)
    said = []
    assert encode(path, split=0.4, max_length=32, long_turns="split", said=said) == whole
    assert [one for one in said if CONTINUING in one]


def damage_tokens(folder):
    content = bytearray((folder / "input_ids").read_bytes())
    content[0] ^= 1
    (folder / "input_ids").write_bytes(content)


def cut_off(folder):
    os.truncate(folder / "targets", 1)


def lose_column(folder):
    (folder / "dialogues").unlink()


def lose_record(folder):
    (folder / "record.json").unlink()


def damage_record(folder):
    (folder / "record.json").write_bytes(b'{"columns": {}, "read": [[]]}')


def forget_columns(folder):
    (folder / "record.json").write_bytes(b'{"columns": {}, "read": []}')


def count_below_zero(folder):
    record = json.loads((folder / "record.json").read_bytes())
    record["columns"]["targets"][0] = -5
    (folder / "record.json").write_text(json.dumps(record))


def link_column(folder):
    (folder / "targets").rename(folder.parent / "elsewhere")
    (folder / "targets").symlink_to(folder.parent / "elsewhere")


def read_other_bytes(folder):
    record = json.loads((folder / "record.json").read_bytes())
    record["read"][0] = [10, "0" * 64]
    (folder / "record.json").write_text(json.dumps(record))


def open_to_others(folder):
    folder.chmod(0o777)


def replace_by_link(folder):
    folder.symlink_to(folder.rename(folder.with_name("elsewhere")))


def replace_by_dangling_link(folder):
    shutil.rmtree(folder)
    folder.symlink_to("nowhere")


def replace_by_file(folder):
    shutil.rmtree(folder)
    folder.write_text("x")


def replace_by_pipe(folder):
    shutil.rmtree(folder)
    os.mkfifo(folder)


@pytest.mark.parametrize(
    "change",
    [
        damage_tokens, cut_off, lose_column, lose_record, damage_record, forget_columns,
        count_below_zero, link_column, read_other_bytes, open_to_others, replace_by_link,
        replace_by_dangling_link, replace_by_file, replace_by_pipe,
    ],
)  # fmt: skip
def test_a_damaged_record_is_not_used(write, encode, unfinished, recording, change):
    path, options = write(*MIXED), {"max_length": 32, "long_turns": "split"}
    whole = encode(path, **options)
    with pytest.raises(Stopped):
        encode(path, stop_after=20, **options)
    change(*unfinished())
    said = []
    assert encode(path, said=said, **options) == whole
    assert [one for one in said if one.endswith("encoding the data from the start")]
    assert not unfinished()


def test_bytes_after_the_last_record_are_not_used(write, encode, unfinished, recording):
    path, options = write(*MIXED), {"max_length": 32, "long_turns": "split"}
    whole = encode(path, **options)
    with pytest.raises(Stopped):
        encode(path, stop_after=20, **options)
    (folder,) = unfinished()
    for name in ("input_ids", "dialogues", "offsets"):
        with (folder / name).open("ab") as file:
            file.write(b"half-written")
    said = []
    assert encode(path, said=said, **options) == whole
    assert [one for one in said if CONTINUING in one]


def test_a_data_file_that_changed_while_it_was_encoded_is_encoded_from_the_start(
    write, encode, unfinished, recording
):
    """The first process hashed the file, then read another one, and was killed."""
    others = [*MIXED[:3], ["No", "Never!"], *MIXED[4:]]
    path, options = write(*MIXED), {"max_length": 32, "long_turns": "split"}
    whole = encode(path, **options)
    with pytest.raises(Stopped):
        encode(path, stop_after=20, **options)
    (right,) = unfinished()
    right = right.rename(right.with_name("right"))
    with pytest.raises(Stopped):
        encode(write(*others), stop_after=20, **options)
    (other,) = unfinished()
    other.rename(other.with_name("other"))
    shutil.rmtree(right)
    write(*MIXED)
    with pytest.raises(Stopped):
        encode(path, stop_after=1, **options)
    (own,) = unfinished()
    shutil.rmtree(own)
    other.with_name("other").rename(own)
    said = []
    assert encode(path, said=said, **options) == whole
    assert [one for one in said if "a data file changed while it was encoded" in one]


def test_another_max_length_and_other_data_leave_an_unfinished_encoding_alone(
    write, encode, unfinished, recording
):
    path = write(*MIXED)
    for max_length in (32, 40, 48):
        with pytest.raises(Stopped):
            encode(path, stop_after=20, max_length=max_length, long_turns="split")
    said = []
    other = encode(path, said=said, max_length=64, long_turns="split")
    assert not [one for one in said if CONTINUING in one]
    assert other
    assert len(unfinished()) == 2  # the oldest is deleted


def test_a_short_encoding_records_nothing(write, encode, unfinished):
    path = write(*MIXED)
    with pytest.raises(Stopped):
        encode(path, stop_after=20, max_length=32, long_turns="split")
    assert not unfinished()


# Workers


def test_the_number_of_workers_changes_no_byte_and_no_problem(write, encode, monkeypatch):
    def results():
        with pytest.raises(PreflightError) as caught:
            encode(path, max_length=16)
        shutil.rmtree(Path(path).parent / "runs" / NAME)  # what was refused is used again
        good = encode(path, max_length=16, long_turns="split")
        return caught.value.message, caught.value.problems, good

    monkeypatch.setattr(dialogue, "_CHUNK_CHARACTERS", 500)
    path = write(*MIXED, ["Hi", "word " * 30])
    alone = results()
    monkeypatch.setattr(encode_module, "_num_workers", lambda paths: 2)
    assert results() == alone


class Located(encode_module._ChunkEncoder):
    """Also returns the process that encodes the chunk."""

    def __call__(self, packed):
        return os.getpid(), super().__call__(packed)


@pytest.mark.parametrize("name", ["turns", "gemma", "qwen"])
def test_every_encoder_works_in_a_worker(make_encoder, sample_dialogues, tiny_config, name):
    is_own = name in TEMPLATES
    encoder = (
        make_encoder(name)
        if is_own
        else native_encoder(family_tokenizer(FAMILIES[name], sample_dialogues), 128)
    )
    config = tiny_config(dialogue={"long_turns": "split"})
    packed = msgspec.msgpack.encode(sample_dialogues[:20])
    call = Located(config, encoder, ["a.jsonl"])
    _, (expected, problems) = call(packed)
    ((process, (part, found)),) = call_in_workers(call, [packed], 1)
    assert process != os.getpid()
    assert found == problems
    for name in ("input_ids", "targets", "lengths", "dialogue_of", "dialogues"):
        assert getattr(part, name).tobytes() == getattr(expected, name).tobytes()


def test_an_encoding_by_workers_continues_too(write, encode, recording, monkeypatch):
    path, options = write(*MIXED), {"max_length": 32, "long_turns": "split"}
    whole = encode(path, **options)
    monkeypatch.setattr(encode_module, "_num_workers", lambda paths: 2)
    with pytest.raises(Stopped):
        encode(path, stop_after=15, **options)
    said = []
    assert encode(path, said=said, **options) == whole
    assert [one for one in said if CONTINUING in one]


@pytest.mark.slow
def test_a_killed_command_and_a_stopped_one_lose_seconds_of_their_work(tmp_path):
    def command(name):
        config = tmp_path / f"{name}.yaml"
        config.write_text(
            f"output_dir: {tmp_path / name}\n"
            f"data: {{train: {path}}}\n"
            "tokenizer: {vocab_size: 360}\n"
            "model: {scratch: {layers: 1, width: 16, heads: 1, context: 512}}\n"
            "dialogue: {max_length: 512, long_turns: split}\n"
            "training: {max_steps: 1}\n"
        )
        return "train", config, "--dry-run"

    def stop(number, before):
        process = start_fork(tmp_path, *command("stopped"))
        try:
            while process.poll() is None:
                records = list((tmp_path / "stopped" / NAME).glob("*.partial/record.json"))
                if records and records[0].read_bytes() != before:
                    process.send_signal(number)
                    break
                time.sleep(0.05)
            _, err = process.communicate(timeout=30)
        finally:
            process.kill()
        assert records, err.decode()
        return process.returncode, records[0].read_bytes(), err.decode()

    def store(name):
        (folder,) = (tmp_path / name / NAME).glob("tokens-*[0-9a-f]")
        modes = {file.name: file.stat().st_mode for file in folder.iterdir()}
        return {file.name: file.read_bytes() for file in folder.iterdir()}, modes

    path = tmp_path / "data.jsonl"
    rng = random.Random(1)
    with path.open("w") as lines:
        for _ in range(3000):
            texts = [" ".join(rng.choices(WORDS, k=10)) for _ in range(80)]
            lines.write(json.dumps(texts) + "\n")
    killed, first, _ = stop(signal.SIGKILL, None)
    terminated, second, said = stop(signal.SIGTERM, first)
    assert (killed, terminated) == (-signal.SIGKILL, 128 + signal.SIGTERM)
    assert CONTINUING in said
    assert second != first
    last = run_fork(tmp_path, *command("stopped"))
    whole = run_fork(tmp_path, *command("whole"))
    assert (last.code, whole.code) == (0, 0), last.err + whole.err
    assert CONTINUING in last.err
    assert CONTINUING not in whole.err
    assert store("stopped") == store("whole")
    assert not list((tmp_path / "stopped" / NAME).glob("*.partial"))
