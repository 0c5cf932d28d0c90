"""SentencePiece model files: where a folder holds one, and its pieces, read within limits.

Reading parses the file's fields and runs none of SentencePiece's native code, which trusts offsets
in the file. Only the bounded process runs that code (`convo_cli.text.spiece.agreement`).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from convo_cli.errors import ModelError, first_line
from convo_cli.storage.files import UnsafeFileError, read_file
from convo_cli.storage.foreign_files import MAX_SPIECE_BYTES
from convo_cli.text.tokenizers.expansion import MAX_TOKEN_CHARACTERS
from convo_cli.wording import quoted

SPIECE_FILE = "spiece.model"
SPACE_MARK = "▁"  # U+2581: SentencePiece's form of a space inside a piece
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""Kinds of pieces, as sentencepiece_model.proto numbers them."""
UNIGRAM, BPE, WORD, CHAR = range(1, 5)
"""Kinds of models, as sentencepiece_model.proto numbers them."""
_KINDS = {UNIGRAM, BPE, CHAR}
_NAMES = (SPIECE_FILE, "tokenizer.model", "sentencepiece.bpe.model", "sentencepiece.model")
_MAX_PIECES = 2**21
"""Twice the largest known vocabulary."""
_TIKTOKEN = re.compile(rb"[A-Za-z0-9+/]{1,200}={0,2} [0-9]{1,9}\r?\n")
"""First line of a tiktoken vocabulary, which some models store as tokenizer.model."""
_HINT = "copy the file again, or take the model from another source"


class SpieceFile(NamedTuple):
    """A SentencePiece model that travels with a run, byte for byte and under its own name."""

    name: str
    content: bytes


@dataclass(frozen=True)
class PieceModel:
    """The pieces of a SentencePiece model and the settings that decide the ids of a text."""

    kind: int
    texts: list[str]
    scores: list[float]
    kinds: list[int]
    byte_fallback: bool
    special_ids: dict[str, int]
    """Index of the unk, bos, eos and pad piece, as far as the model has them."""
    normalizer: str
    """Name of the normalization rules, such as nmt_nfkc."""
    charsmap: bytes
    adds_prefix: bool
    """A space is put before every text."""
    removes_spaces: bool
    """Spaces at both ends are removed, and several between words are one."""

    @property
    def unk_index(self) -> int:
        """Return the index of the unknown piece."""
        return self.special_ids["unk_token"]


def find_spiece(folder: Path) -> Path | None:
    """Return the SentencePiece model of a folder, the usual names first; None without one."""
    files = sorted(file for file in folder.glob("*.model") if file.is_file())
    order = {name: position for position, name in enumerate(_NAMES)}
    return min(files, key=lambda file: order.get(file.name, len(order)), default=None)


def read_spiece(folder: Path, source: str) -> SpieceFile | None:
    """Return the SentencePiece model of a folder; None if it has none, or one of another format.

    The links of a hub's cache are followed. Raises ModelError, naming the file, if it is damaged,
    too large, not a regular file or a link; the folder is named as ``source``.
    """
    if (path := find_spiece(folder)) is None:
        return None
    named = Path(source, path.name)
    is_of_hub = folder.resolve().parent.name == "snapshots"
    try:
        content = read_file(path.resolve() if is_of_hub else path, MAX_SPIECE_BYTES)
    except UnsafeFileError as error:
        raise ModelError(f"{named}: {error.strerror}", hint=error.hint) from error
    except OSError as error:
        raise ModelError(f"{named}: cannot be read ({error.strerror})", hint=_HINT) from error
    if _TIKTOKEN.match(content):
        return None
    read_pieces(content, named)
    return SpieceFile(path.name, content)


def read_pieces(content: bytes, source: Path | str) -> PieceModel:
    """Return the pieces of a model; ModelError names the source and what is wrong with it."""
    try:
        return _read(content)
    except ValueError as error:
        raise ModelError(f"{source}: {first_line(error)}", hint=_HINT) from error


def parsed(content: bytes) -> Any:
    """Return the message in a model file."""
    from sentencepiece import sentencepiece_model_pb2

    untyped: Any = sentencepiece_model_pb2
    return untyped.ModelProto.FromString(content)


def _read(content: bytes) -> PieceModel:
    """Return the pieces of a model; ValueError says what is wrong with it."""
    from google.protobuf.message import DecodeError

    try:
        proto = parsed(content)
        texts = [piece.piece for piece in proto.pieces]
    except (DecodeError, UnicodeDecodeError) as error:
        raise ValueError("not a SentencePiece model, or a damaged one") from error
    if not texts or not proto.HasField("trainer_spec") or not proto.HasField("normalizer_spec"):
        missing = "settings" if texts else "pieces"
        raise ValueError(f"a SentencePiece model without {missing}; the file may be cut off")
    trainer, rules = proto.trainer_spec, proto.normalizer_spec
    kinds = [piece.type for piece in proto.pieces]
    scores = [piece.score for piece in proto.pieces]
    _require_sound(texts, scores, kinds)
    if trainer.model_type not in _KINDS:
        raise ValueError("a SentencePiece model of whole words, which convo cannot convert")
    if trainer.treat_whitespace_as_suffix or not rules.escape_whitespaces:
        raise ValueError("marks spaces in a way that convo cannot convert")
    byte_fallback = trainer.byte_fallback
    if byte_fallback and not {f"<0x{byte:02X}>" for byte in range(256)} <= set(texts):
        raise ValueError("writes unknown characters as bytes, but lacks pieces for some bytes")
    named = {f"{name}_token": getattr(trainer, f"{name}_id") for name in ("bos", "eos", "pad")}
    special_ids = {
        name: index
        for name, index in named.items()
        if 0 <= index < len(texts) and kinds[index] == CONTROL
    }
    return PieceModel(
        kind=trainer.model_type,
        texts=texts,
        scores=scores,
        kinds=kinds,
        byte_fallback=byte_fallback,
        special_ids={"unk_token": kinds.index(UNKNOWN), **special_ids},
        normalizer=rules.name,
        charsmap=rules.precompiled_charsmap,
        adds_prefix=rules.add_dummy_prefix,
        removes_spaces=rules.remove_extra_whitespaces,
    )


def _require_sound(texts: list[str], scores: list[float], kinds: list[int]) -> None:
    if len(texts) > _MAX_PIECES:
        raise ValueError(f"{len(texts):,} pieces, but at most {_MAX_PIECES:,} are allowed")
    if (longest := max(map(len, texts))) > MAX_TOKEN_CHARACTERS:
        raise ValueError(
            f"has a piece of {longest:,} characters (at most {MAX_TOKEN_CHARACTERS:,} are allowed)"
        )
    if len(set(texts)) < len(texts) or "" in texts:
        number, text = Counter(texts).most_common(1)[0][::-1]
        raise ValueError(
            f"{number:,} pieces are {quoted(text)}" if number > 1 else "a piece is empty"
        )
    for text, score in zip(texts, scores, strict=True):
        if not math.isfinite(score):
            raise ValueError(f"the score of the piece {quoted(text)} is {score}")
    if (number := kinds.count(UNKNOWN)) != 1:
        raise ValueError(f"{number} unknown pieces, but a model has exactly one")
    if NORMAL not in kinds:
        raise ValueError("no piece stands for text")
