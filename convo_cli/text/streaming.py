"""Streaming decoder: the text of a reply while its ids arrive one by one."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convo_cli.text.encoder import DialogueEncoder

_ALONE = {"ByteLevel", "Metaspace", "WordPiece", "BPEDecoder", "CTC"}
_BEFORE_FUSE = {"Metaspace", "Replace", "ByteFallback"}
_BYTE_PIECE = re.compile("<0x..>")  # SentencePiece's spelling of a byte
_MAX_CONTEXT = 8
"""Ids before a group that are decoded with it.

One with text is enough; more would slow down runs of invalid bytes.
"""
_NEVER = 1 << 62


class StreamDecoder:
    """Turns ids that arrive one by one into text that never shows half a character.

    The pieces of text concatenate to exactly the text of all ids decoded at once. An id is decoded
    together with the group before it, as in TGI and vLLM, because decoders may drop the space of
    the first token of a text and the word end of the last. At most 20 ids are decoded for each id
    of the reply. If a later token may change any earlier text, all text comes at the end.

    The tokenizers library's own DecodeStream (0.23) raises on ids that spell invalid UTF-8, which a
    model may write, loses an incomplete character at the end, and takes quadratic time for bytes
    that are not a character.
    """

    def __init__(self, encoder: DialogueEncoder) -> None:
        self._encoder = encoder
        steps = _decoder_steps(encoder.tokenizer)
        self._word_ends = [str(step["suffix"]) for step in steps if step["type"] == "BPEDecoder"]
        self._context: list[int] = []
        """The last ids whose text was returned."""
        self._context_length = 0
        """Length of the context when it is decoded alone, in characters."""
        self._waiting: list[int] = []
        self._enough = 1 if _is_local(steps) else _NEVER
        """Number of waiting ids at which decoding is tried again."""

    def push(self, token: int) -> str:
        """Return the text that became certain with this id; empty inside a character."""
        name = self._encoder.tokenizer.convert_ids_to_tokens(token)
        if name is None or self._encoder.is_special(token):
            return ""
        self._waiting.append(token)
        if len(self._waiting) < self._enough or self._is_open(str(name)):
            return ""
        text = self._text()
        if not text or text.endswith("\ufffd"):
            # A reply may end in thousands of bytes that are not a character. With waits that grow
            # by an eighth, each of these ids is decoded nine times; up to 8 ids, more than any
            # character has, every id is tried.
            self._enough = len(self._waiting) + 1 + len(self._waiting) // 8
            return ""
        for context in (self._waiting[-_MAX_CONTEXT:], self._waiting):
            self._context, self._context_length = context, len(self._encoder.decode(context))
            # A decoder that strips the first space of a text now strips that of the context.
            if self._context_length:
                break
        self._waiting, self._enough = [], 1
        return text

    def _is_open(self, name: str) -> bool:
        """Return whether the next token may still change the text of a token.

        A run of bytes is text only if all of it is UTF-8, and a word end at the end of a reply is
        not a space.
        """
        return bool(_BYTE_PIECE.search(name)) or any(end in name[:-1] for end in self._word_ends)

    def finish(self) -> str:
        """Return the rest of the text after the last id."""
        text, self._waiting = self._text() if self._waiting else "", []
        return text

    def _text(self) -> str:
        """Decode the waiting ids in their context."""
        return self._encoder.decode([*self._context, *self._waiting])[self._context_length :]


def _decoder_steps(tokenizer: Any) -> list[dict[str, Any]]:
    """Return the steps of the tokenizer's decoder; none if it joins tokens with spaces."""
    decoder = tokenizer.backend_tokenizer.decoder
    if decoder is None:
        return []
    # The state for pickle is JSON too, without the vocabulary that Tokenizer.to_str writes.
    spec = json.loads(decoder.__getstate__())
    return list(spec["decoders"]) if spec["type"] == "Sequence" else [spec]


def _is_local(steps: Sequence[dict[str, Any]]) -> bool:
    """Return whether the text of a token depends only on the tokens right before it.

    Before tokens are fused, a step sees one token at a time, so it may do anything but join them or
    turn text into bytes. A step after that sees the whole text, so it may only strip the first
    space.
    """
    kinds = [step["type"] for step in steps]
    if len(kinds) <= 1 and _ALONE.issuperset(kinds):
        return True
    num_before = kinds.index("Fuse") if "Fuse" in kinds else len(kinds)
    return (
        _BEFORE_FUSE.issuperset(kinds[:num_before])
        and all(step["content"] == " " for step in steps if step["type"] == "Replace")
        and all(
            step["type"] == "Strip" and step["start"] < 2 and not step["stop"]
            for step in steps[num_before + 1 :]
        )
    )
