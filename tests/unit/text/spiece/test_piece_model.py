"""A SentencePiece model is read within limits; a damaged one is refused by name and reason."""

from __future__ import annotations

import math
import os
import sys

import pytest

from convo_cli.errors import ModelError
from convo_cli.storage.foreign_files import MAX_SPIECE_BYTES
from convo_cli.text.spiece.piece_model import SpieceFile, find_spiece, read_pieces, read_spiece
from tests.hostile_folders import spiece

WHOLE = spiece().SerializeToString()


def changed(change):
    model = spiece()
    change(model)
    return model.SerializeToString()


def twice(model):
    model.pieces.add(piece="▁1", score=-1)


def two_unknown(model):
    model.pieces.add(piece="<u>", score=0, type=2)


def no_text(model):
    for piece in model.pieces[1:]:
        piece.type = 3


DAMAGED = {
    "": (b"", "without pieces"),
    "text": (b"nonsense", "not a SentencePiece model, or a damaged one"),
    "a claim": (b"\x0a\x80\x80\x80\x80\x08" + bytes(100), "not a SentencePiece model"),
    "settings cut off": (b"\x0a\x03\x0a\x01a", "without settings; the file may be cut off"),
    "no pieces": (changed(lambda model: model.ClearField("pieces")), "without pieces"),
    "nan": (spiece(score=math.nan).SerializeToString(), 'score of the piece "▁0" is nan'),
    "infinite": (spiece(score=-math.inf).SerializeToString(), 'score of the piece "▁0" is -inf'),
    "long": (spiece(piece="x" * 5000).SerializeToString(), "has a piece of 5,000 characters"),
    "empty piece": (spiece(piece="").SerializeToString(), "a piece is empty"),
    "twice": (changed(twice), '2 pieces are "▁1"'),
    "two unknown": (changed(two_unknown), "2 unknown pieces"),
    "no unknown": (changed(lambda model: model.pieces.pop(0)), "0 unknown pieces"),
    "no text": (changed(no_text), "no piece stands for text"),
    "bytes": (
        changed(lambda model: setattr(model.trainer_spec, "byte_fallback", True)),
        "lacks pieces for some bytes",
    ),
    "suffix": (
        changed(lambda model: setattr(model.trainer_spec, "treat_whitespace_as_suffix", True)),
        "marks spaces in a way that convo cannot convert",
    ),
}


@pytest.mark.parametrize(("content", "reason"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_model_is_refused_with_its_name(tmp_path, content, reason):
    (tmp_path / "spiece.model").write_bytes(content)
    with pytest.raises(ModelError) as error:
        read_spiece(tmp_path, "model")
    assert error.value.message.startswith("model/spiece.model: ")
    assert reason in error.value.message
    assert error.value.hint


def test_a_model_that_is_cut_off_anywhere_is_refused():
    for length in range(0, len(WHOLE) - len(spiece().normalizer_spec.SerializeToString()), 97):
        with pytest.raises(ModelError, match=r"cut off|damaged"):
            read_pieces(WHOLE[:length], "spiece.model")


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with (tmp_path / "spiece.model").open("wb") as file:
        file.truncate(MAX_SPIECE_BYTES + 1)
    with pytest.raises(ModelError, match=r"spiece\.model: larger than 33,554,432 bytes"):
        read_spiece(tmp_path, "model")


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_a_link_is_not_followed_outside_of_a_hubs_cache(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs/1").write_bytes(WHOLE)
    for folder in (tmp_path / "elsewhere", tmp_path / "snapshots/1"):
        folder.mkdir(parents=True)
        (folder / "spiece.model").symlink_to(tmp_path / "blobs/1")
    with pytest.raises(ModelError, match="a symbolic link"):
        read_spiece(tmp_path / "elsewhere", "model")
    assert read_spiece(tmp_path / "snapshots/1", "model") == SpieceFile("spiece.model", WHOLE)


def test_the_usual_name_comes_first_and_other_formats_are_none(tmp_path):
    assert find_spiece(tmp_path) is None
    assert read_spiece(tmp_path, "model") is None
    (tmp_path / "tokenizer.model").write_bytes(b"IQ== 0\nIg== 1\n")  # tiktoken's
    assert read_spiece(tmp_path, "model") is None
    (tmp_path / "a.model").write_bytes(WHOLE)
    assert find_spiece(tmp_path).name == "tokenizer.model"
    (tmp_path / "spiece.model").write_bytes(WHOLE)
    assert read_spiece(tmp_path, "model").name == "spiece.model"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes have no name on Windows")
def test_a_pipe_is_no_model(tmp_path, never_waits):
    os.mkfifo(tmp_path / "spiece.model")
    assert read_spiece(tmp_path, "model") is None
