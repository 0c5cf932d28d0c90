"""Replies as words, computed once for all metrics, and the statistics that metrics return.

Shapes: N replies, K statistics of a reply.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from convo_cli.events import SampleReply

Array: TypeAlias = npt.NDArray[np.float64]

_NUM_CACHED = 100_000  # texts; floors and intervals ask for the same words again


@dataclass(frozen=True, slots=True)
class Additive:
    """A metric that is a function of the sum of per-reply statistics."""

    rows: Array  # (N, K)
    of_sums: Callable[[Array], Array]
    """Compute the metric of sums of rows, (..., K) to (...)."""

    @property
    def value(self) -> float:
        """Return the metric of all replies."""
        return float(self.of_sums(self.rows.sum(axis=0)))


class ReplyTexts:
    """The texts of replies, of the real replies and of the turns before them."""

    def __init__(self, replies: Sequence[SampleReply]) -> None:
        self.samples = tuple(replies)
        self.replies = tuple(reply.reply for reply in replies)
        self.references = tuple(
            tuple(dict.fromkeys((one.reference, *one.other_references))) for one in replies
        )
        """The distinct real replies to each turn, at least one."""
        self.prompts = tuple(last_user_turn(reply) for reply in replies)
        self.shared: dict[str, Any] = {}
        """Statistics that several metrics use, by name."""

    @cached_property
    def reply_words(self) -> tuple[tuple[str, ...], ...]:
        """Words of each reply."""
        return tuple(words(text) for text in self.replies)

    @cached_property
    def reference_words(self) -> tuple[tuple[tuple[str, ...], ...], ...]:
        """Words of the real replies to each turn."""
        return tuple(tuple(words(text) for text in texts) for texts in self.references)

    @cached_property
    def folded_replies(self) -> tuple[tuple[str, ...], ...]:
        """Case-folded words of each reply."""
        return tuple(folded_words(text) for text in self.replies)

    @cached_property
    def folded_references(self) -> tuple[tuple[tuple[str, ...], ...], ...]:
        """Case-folded words of the real replies to each turn."""
        return tuple(tuple(folded_words(text) for text in texts) for texts in self.references)

    @cached_property
    def folded_prompts(self) -> tuple[tuple[str, ...], ...]:
        """Case-folded words of the last user turn before each reply."""
        return tuple(folded_words(text) for text in self.prompts)

    def real(self) -> ReplyTexts:
        """Return the same turns with the real replies in place of the generated ones."""
        return ReplyTexts(
            [replace(sample, reply=sample.reference, stopped=True) for sample in self.samples]
        )


def last_user_turn(reply: SampleReply) -> str:
    """Return the text of the last user turn, else of the last turn, else an empty text."""
    by_user = [text for role, text in reply.history if role == "user"]
    return (by_user or [text for _, text in reply.history] or [""])[-1]


@lru_cache(maxsize=_NUM_CACHED)
def words(text: str) -> tuple[str, ...]:
    """Return the words of a text by sacrebleu's "intl" tokenization.

    Kana and Chinese characters, which are written without spaces, are words one by one.
    """
    from sacrebleu.tokenizers.tokenizer_intl import TokenizerV14International

    spaced = "".join(f" {char} " if _is_unspaced(char) else char for char in text)
    return tuple(TokenizerV14International()(spaced).split())


@lru_cache(maxsize=_NUM_CACHED)
def folded_words(text: str) -> tuple[str, ...]:
    """Return the case-folded words of a text."""
    return tuple(word.casefold() for word in words(text))


def _is_unspaced(char: str) -> bool:
    code = ord(char)
    return 0x3040 <= code <= 0x30FF or 0x3400 <= code <= 0x9FFF
