"""The text of a reply while its ids arrive one by one."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convo_cli.text.encoder import DialogueEncoder

_ALONE = {"ByteLevel", "Metaspace", "WordPiece", "BPEDecoder", "CTC"}
_BEFORE_FUSE = {"Metaspace", "Replace", "ByteFallback"}
_BYTE_PIECE = "<0x..>"  # SentencePiece's spelling of a byte
_MAX_CONTEXT = 8
"""Ids before a group that are decoded with it. One with text is enough; more would cost in runs of broken bytes."""
_NEVER = 1 << 62


class StreamDecoder:
    """Turns ids that arrive one by one into text that never shows half a character.

    The pieces of text concatenate to exactly what decoding all ids at once gives. An id is decoded together with the
    group before it, as TGI and vLLM do, for the first token of a text may lose its space, and the last its word's end.
    No more than 20 ids are decoded for each id of the reply. Where a later token may change any text before it, all
    text comes at the end.

    The tokenizers library's own DecodeStream, as of 0.23, raises on ids that spell invalid UTF-8, which a model may
    write, loses an incomplete character at the end, and takes quadratic time for bytes that are no character.
    """

    def __init__(self, encoder: DialogueEncoder) -> None:
        self._encoder = encoder
        steps = _decoder_steps(encoder.tokenizer)
        self._is_open = _open_tokens(steps)
        self._context: list[int] = []
        """The last ids whose text was shown."""
        self._context_length = 0
        """Characters that the context has where it is decoded alone."""
        self._waiting: list[int] = []
        self._enough = 1 if _is_local(steps) else _NEVER
        """Number of waiting ids that are worth decoding."""

    def push(self, token: int) -> str:
        """The text that became certain with this id; often empty inside a character of several tokens."""
        name = self._encoder.tokenizer.convert_ids_to_tokens(token)
        if name is None or self._encoder.is_special(token):
            return ""
        self._waiting.append(token)
        if len(self._waiting) < self._enough or self._is_open.search(str(name)):
            return ""
        text = self._text()
        if not text or text.endswith("\ufffd"):
            # A reply may end in thousands of bytes that are no character. Waits that grow by an eighth decode each id
            # of them nine times; up to 8 ids, more than any character has, every id is tried.
            self._enough = len(self._waiting) + 1 + len(self._waiting) // 8
            return ""
        for context in (self._waiting[-_MAX_CONTEXT:], self._waiting):
            self._context, self._context_length = context, len(self._encoder.decode(context))
            if self._context_length:
                break  # the space that a decoder strips from the start of all text is then stripped from the context
        self._waiting, self._enough = [], 1
        return text

    def finish(self) -> str:
        """The rest of the text, once no more ids come."""
        text, self._waiting = self._text() if self._waiting else "", []
        return text

    def _text(self) -> str:
        """The text of the waiting ids behind their context."""
        return self._encoder.decode([*self._context, *self._waiting])[self._context_length :]


def _decoder_steps(tokenizer: Any) -> list[dict[str, Any]]:
    """The steps of the tokenizer's decoder as its JSON states them; none where it joins tokens with spaces."""
    decoder = tokenizer.backend_tokenizer.decoder
    if decoder is None:
        return []
    spec = json.loads(decoder.__getstate__())  # what pickle reads; Tokenizer.to_str writes the vocabulary too
    return list(spec["decoders"]) if spec["type"] == "Sequence" else [spec]


def _is_local(steps: Sequence[dict[str, Any]]) -> bool:
    """Whether a token's text depends on the tokens right before it and on nothing else.

    Before tokens are fused, a step sees each of them, so it may do anything but join them or make bytes of text. What
    comes after sees the whole text: there only its first space may go.
    """
    kinds = [step["type"] for step in steps]
    if len(kinds) <= 1 and _ALONE.issuperset(kinds):
        return True
    num_before = kinds.index("Fuse") if "Fuse" in kinds else len(kinds)
    return (
        _BEFORE_FUSE.issuperset(kinds[:num_before])
        and all(step["content"] == " " for step in steps if step["type"] == "Replace")
        and all(step["type"] == "Strip" and step["start"] < 2 and not step["stop"] for step in steps[num_before + 1 :])
    )


def _open_tokens(steps: Sequence[dict[str, Any]]) -> re.Pattern[str]:
    """Finds the tokens whose text the next token may still change.

    A run of bytes is text only if all of it is UTF-8, and a word's end is no space at the end of a reply.
    """
    ends = [re.escape(step["suffix"]) + "(?s:.)" for step in steps if step["type"] == "BPEDecoder"]
    return re.compile("|".join([_BYTE_PIECE, *ends]))
