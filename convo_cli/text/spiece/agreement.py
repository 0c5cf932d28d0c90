"""Comparison of a converted tokenizer with SentencePiece itself, which runs in the bounded process.

Expected are SentencePiece's pieces of a text, after the class's own changes to the text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convo_cli.errors import ModelError, first_line
from convo_cli.text.bounded import client
from convo_cli.text.bounded.process import ENCODE_PIECES, trial_limits
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.spiece.class_rules import cut_numbers
from convo_cli.text.spiece.piece_model import UNIGRAM, PieceModel, parsed
from convo_cli.text.spiece.slow_tokenizer import NO_CONVERSION, SlowTokenizer, find_slow_tokenizer
from convo_cli.text.templates.pieces import special_tokens
from convo_cli.text.tokenizers.probes import PROBES
from convo_cli.text.tokenizers.vocabulary import TokenFinder
from convo_cli.wording import counted, quoted

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SAME_PROBABILITY = 1e-5
"""Largest relative difference of two sums of scores that 32-bit sums cannot tell apart."""


@dataclass(frozen=True)
class Difference:
    """A text whose pieces differ from those of SentencePiece."""

    text: str
    pieces: list[str]
    expected: list[str]

    def __str__(self) -> str:
        ours, theirs = _first_difference(self.pieces, self.expected)
        return f"{quoted(self.text, 80)} has the pieces {ours}, but {theirs} in SentencePiece"


@dataclass(frozen=True)
class Agreement:
    """The result of a comparison."""

    num_texts: int
    differences: list[Difference]
    num_ties: int
    """Texts with two segmentations of the same probability, of which each has one."""


def sentencepieces(slow: SlowTokenizer, texts: Sequence[str], source: str) -> list[list[str]]:
    """Return SentencePiece's pieces of each text; only for the bounded process."""
    from sentencepiece import SentencePieceProcessor

    proto = parsed(slow.file.content)
    # A turn is never the first text of all, because a special token comes before it.
    proto.normalizer_spec.add_dummy_prefix = slow.prefix == "always"
    try:
        processor = SentencePieceProcessor(model_proto=proto.SerializeToString())
    except RuntimeError as error:
        raise ModelError(
            f"{source}: SentencePiece cannot load {slow.file.name} ({first_line(error)})",
            hint="copy the file again, or take the model from another source",
        ) from error

    def encode(text: str) -> list[str]:
        return [processor.id_to_piece(index) for index in processor.encode(text)]

    found = [encode(slow.rules.prepare(text, slow.settings)) for text in texts]
    if slow.rules.cuts_numbers:
        found = [cut_numbers(pieces, encode) for pieces in found]
    return found


def encode_pieces(folder: Path, source: str, texts: Sequence[str]) -> dict[str, Any]:
    """Return SentencePiece's pieces of each text, or an error, for the answer of the process."""
    try:
        if (slow := find_slow_tokenizer(folder, source)) is None:
            return {"pieces": []}
        return {"pieces": sentencepieces(slow, texts, source)}
    except ModelError as error:
        return {"error": [error.message, error.hint]}


def compare_with_sentencepiece(
    slow: SlowTokenizer,
    tokenizer: PreTrainedTokenizerBase,
    text_ids: Callable[[Sequence[str]], list[list[int]]],
    folder: Path,
    source: str,
    texts: Sequence[str],
) -> Agreement:
    """Compare the ids of each text with those of SentencePiece in the bounded process.

    Texts that spell a special token are left out, because convo never reads one in a text. Raises
    ModelError if SentencePiece fails or exceeds the limits.
    """
    finder = TokenFinder(special_tokens(tokenizer))
    texts = [text for text in texts if not finder.find(text)]
    num_bytes = len(slow.file.content)
    request = [str(folder.absolute()), source, num_bytes, texts]
    try:
        answer = json.loads(client.ask(ENCODE_PIECES, json.dumps(request).encode()))
    except client.EndedError as end:
        raise ModelError(
            f"{source}: SentencePiece with {slow.file.name} {end.reason(trial_limits(num_bytes))}",
            hint="take the model from another source",
        ) from None
    if "error" in answer:
        message, hint = answer["error"]
        raise ModelError(message, hint=hint)

    untyped: Any = tokenizer

    def pieces_of(texts: Sequence[str]) -> list[list[str]]:
        return [untyped.convert_ids_to_tokens(ids) for ids in text_ids(texts)]

    return compare(slow, texts, answer["pieces"], pieces_of)


def compare(
    slow: SlowTokenizer,
    texts: Sequence[str],
    expected: Sequence[Sequence[str]],
    pieces_of: Callable[[Sequence[str]], list[list[str]]],
) -> Agreement:
    """Compare the tokenizer's pieces of each text with those of SentencePiece."""
    differences, num_ties = list[Difference](), 0
    for text, ours, theirs in zip(texts, pieces_of(texts), expected, strict=True):
        if ours == theirs:
            continue
        if _is_tie(slow.pieces, ours, theirs):
            num_ties += 1
        else:
            differences.append(Difference(text, list(ours), list(theirs)))
    return Agreement(len(texts), differences, num_ties)


def _is_tie(pieces: PieceModel, ours: Sequence[str], theirs: Sequence[str]) -> bool:
    """Return whether both are cuts of the same text, of the same probability."""
    if pieces.kind != UNIGRAM or "".join(ours) != "".join(theirs):
        return False
    scores = dict(zip(pieces.texts, pieces.scores, strict=True))
    one, other = (sum(scores[piece] for piece in cut) for cut in (ours, theirs))
    return math.isclose(one, other, rel_tol=_SAME_PROBABILITY)


def _first_difference(ours: Sequence[str], theirs: Sequence[str]) -> tuple[str, str]:
    """Return a few pieces of both from the first different one on."""
    pairs = enumerate(zip_longest(ours, theirs))
    start = next(index for index, (one, other) in pairs if one != other)
    first, second = (quoted(" ".join(pieces[start : start + 4])) for pieces in (ours, theirs))
    return first, second


def require_same_ids(
    slow: SlowTokenizer, encoder: DialogueEncoder, texts: Sequence[str], folder: Path, source: str
) -> str:
    """Prove that a converted tokenizer encodes training texts as SentencePiece does.

    Returns the notice about it; raises ModelError if a text gets other ids.
    """
    compare = partial(
        compare_with_sentencepiece, slow, encoder.tokenizer, encoder.text_ids, folder, source
    )
    found = compare(texts)
    if found.differences:
        differ = f"{len(found.differences):,} of {found.num_texts:,} training texts"
        raise ModelError(
            f"{source}: its tokenizer {slow.name} cannot be converted, because {differ} get other "
            f"ids than from SentencePiece: {found.differences[0]}",
            hint=NO_CONVERSION,
        )
    hard = compare(PROBES)
    message = (
        f"tokenizer: converted {slow.file.name} ({slow.name}) to tokenizer.json; the first "
        f"{counted(found.num_texts, 'training text')} get the same ids as from SentencePiece"
    )
    if found.num_ties:
        message += (
            f" (for {found.num_ties:,}, those of another segmentation that is equally likely)"
        )
    if hard.differences:
        message += (
            f", but {len(hard.differences)} of {hard.num_texts} texts with rare characters do not"
        )
    return message
