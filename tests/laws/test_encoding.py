"""Encoding gives the same store and the same problems, however its work is cut."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from convo_cli.data import dialogue
from convo_cli.data.dialogue import Dialogue, Turn, chunks
from convo_cli.prepare.cache import Cache
from convo_cli.prepare.inputs import Inputs
from convo_cli.prepare.preflight import PreflightError
from convo_cli.prepare.prepare import prepare_data
from convo_cli.runs.provenance.data_files import read_data_files
from tests.memory import with_peak

SHORT = ["Hi", "Hello!", "How are you?", "Fine."]
LONG = [f"Words and words {k}, and {'more ' * (k % 7)}words." for k in range(60)]
UNANSWERED = ["Is anybody here?"]


@pytest.fixture
def write(tmp_path):
    def write_lines(*dialogues):
        path = tmp_path / "data.jsonl"
        path.write_text("".join(json.dumps(turns) + "\n" for turns in dialogues))
        return str(path)

    return write_lines


@pytest.fixture
def encode(tiny_config, make_encoder, tmp_path):
    def encode_file(path, **dialogue_config):
        config = tiny_config(data={"train": path, "validation": []}, dialogue=dialogue_config)
        emitted = []
        cache = Cache(tmp_path / "runs", emitted.append)
        inputs = Inputs(config, read_data_files(config.data), cache, emitted.append)
        encoder = make_encoder(max_length=config.dialogue.max_length)
        prepare_data(inputs, encoder, max_problems=100)
        (folder,) = (tmp_path / "runs/.convo-cache").glob("tokens-*[0-9a-f]")
        files = {file.name: file.read_bytes() for file in folder.iterdir()}
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
        return files

    return encode_file


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
