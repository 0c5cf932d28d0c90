"""Forms of dialogues under a chat template: its own text around the texts of the turns.

Marks are rendered in place of texts, once for each sequence of roles; everything between the marks
is the template's own text, which is cut at its special tokens and assigned to the turns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, takewhile
from typing import TYPE_CHECKING, TypeAlias

from convo_cli.data.dialogue import Role, Turn
from convo_cli.errors import DataError
from convo_cli.text.bounded.rendering import Rendered, refusal
from convo_cli.text.templates.pieces import NO_TURN, Piece, special_tokens
from convo_cli.text.tokenizers.vocabulary import TokenFinder
from convo_cli.wording import quoted

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARK = "\ufdd0{}\ufdd0"
"""Placeholder for a turn's text; no template contains this Unicode noncharacter."""
_MAX_SHOWN = 100  # characters of a template's own text in an error

Ask: TypeAlias = Callable[[Sequence[Turn], bool], Rendered | DataError]
"""Renders a dialogue, with the generation prompt or without."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A template's own text between the texts of two turns."""

    rest: str
    """The rest of the first turn."""
    header: str = ""
    """The header of the second turn."""
    lead: str = ""
    """The part that belongs to the second turn's text: empty, or a space before its first word."""


@dataclass(frozen=True, slots=True)
class Form:
    """The pieces of all dialogues with the same sequence of roles, without their texts."""

    pieces: tuple[Piece, ...]
    slots: tuple[int, ...]
    """For each turn, the index of the piece that receives its text."""


class FormFinder:
    """Finds the form of each sequence of roles; DataError if the template has none for it."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, ask: Ask) -> None:
        self._ask = ask
        self._between = lru_cache(maxsize=512)(self._render_marks)
        self.form = lru_cache(maxsize=512)(self._find_form)
        start, after_user = self._between(("user",), False)
        after_assistant = self._between(("user", "assistant"), False)[-1]
        question = self._between(("user", "assistant", "user"), False)[2]
        prompt = self._between(("user",), True)[-1]
        own_text = start + prompt + question + after_assistant
        self._special = TokenFinder(
            special_tokens(tokenizer) | _written_tokens(tokenizer, own_text)
        )
        question = question[self._same_start(question, after_assistant) :]
        asks = question[len(question) - self._same_end(question, start) :].rstrip(" ")
        answers = prompt[self._same_start(prompt, after_user) :]
        # A line break before the token of a header belongs to the turn before it.
        if self._special.first(answers.lstrip())[0] == 0:
            answers = answers.lstrip()
        # Every window begins with the BOS token, whichever role comes first.
        bos = str(tokenizer.bos_token or "")
        if not answers.startswith(bos):
            asks = asks.removeprefix(bos)
        self._headers = {"user": asks, "assistant": answers}

    def ends(self, roles: tuple[Role, ...]) -> list[str]:
        """Return the special tokens that end the replies of a dialogue with these roles."""
        gaps = self._find_gaps(roles, False)[1:]
        rests = [gap.rest for role, gap in zip(roles, gaps, strict=True) if role == "assistant"]
        return [rest[slice(*self._special.first(rest))] for rest in rests]

    def _find_form(self, roles: tuple[Role, ...], for_reply: bool) -> Form:
        *gaps, last = self._find_gaps(roles, for_reply)
        pieces, slots = self._split(gaps[0].rest, NO_TURN), []
        for index, (role, gap, after) in enumerate(
            zip(roles, gaps, [*gaps[1:], last], strict=True)
        ):
            _, end = self._special.first(after.rest)
            if role == "assistant" and end == 0:
                raise refusal(
                    "ends an assistant turn without a special token, so the model would never "
                    "learn to stop"
                )
            pieces += self._split(gap.header, index)
            slots.append(len(pieces))
            said = [Piece(gap.lead, index), *self._split(after.rest[:end], index)]
            pieces += [piece._replace(is_target_text=role != "system") for piece in said]
            pieces += self._split(after.rest[end:], index)
        return Form((*pieces, *self._split(last.header, len(roles))), tuple(slots))

    def _find_gaps(self, roles: tuple[Role, ...], for_reply: bool) -> list[Gap]:
        """Return the gap before each turn, and the one after the last."""
        between = self._between(roles, for_reply)
        gaps = []
        for index, (role, text) in enumerate(zip(roles, between, strict=False)):
            # In most tokenizers, spaces before a text are part of its first word.
            end = len(text.rstrip(" "))
            if role == "assistant" and "user" in roles[:index]:
                *before, prompt = self._between(roles[:index], True)
                end = len(prompt)
                if before != between[:index] or not text.startswith(prompt):
                    raise refusal("begins a reply differently from its generation prompt")
                added = text[end:]
                if added.strip():
                    shown = quoted(added, _MAX_SHOWN)
                    raise refusal(
                        f"writes {shown} before a reply, but not in its generation prompt"
                    )
            gaps.append(self._gap(text, end, role))
        last = between[-1]
        return [*gaps, self._gap(last, len(last), "assistant") if for_reply else Gap(last)]

    def _gap(self, text: str, end: int, role: Role) -> Gap:
        """Split a gap; its header, up to ``end``, is the text before every turn of the role."""
        header, begin = self._headers.get(role, ""), end
        if header and text[:end].endswith(header):
            begin = len(text[: end - len(header)].rstrip(" "))
        return Gap(text[:begin], text[begin:end], text[end:])

    def _render_marks(self, roles: tuple[Role, ...], for_reply: bool) -> list[str]:
        """Return the template's own text before, between and after turns with these roles."""
        marks = [_MARK.format(index) for index in range(len(roles))]
        turns = [Turn(role, mark) for role, mark in zip(roles, marks, strict=True)]
        rendered = self._ask(turns, for_reply)
        if isinstance(rendered, DataError):
            raise rendered
        parts = re.split(f"({_MARK.format('[0-9]+')})", rendered.text)
        if parts[1::2] != marks:
            raise refusal("does not render every turn once and in order")
        return parts[::2]

    def _split(self, text: str, turn: int) -> list[Piece]:
        """Cut the template's own text at its special tokens."""
        pieces, position = list[Piece](), 0
        for start, stop in self._special.find(text):
            pieces.append(Piece(text[position:start], turn))
            pieces.append(Piece(text[start:stop], turn, is_special=True))
            position = stop
        pieces.append(Piece(text[position:], turn))
        return [piece for piece in pieces if piece.text]

    def _same_start(self, one: str, other: str) -> int:
        return _num_same(self._units(one), self._units(other))

    def _same_end(self, one: str, other: str) -> int:
        return _num_same(self._units(one)[::-1], self._units(other)[::-1])

    def _units(self, text: str) -> list[str]:
        """Split a text into special tokens and single characters."""
        units = ([piece.text] if piece.is_special else piece.text for piece in self._split(text, 0))
        return list(chain.from_iterable(units))


def _num_same(one: Sequence[str], other: Sequence[str]) -> int:
    """Return the length of the common start of two sequences of strings, in characters."""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return sum(len(unit) for unit, _ in same)


def _written_tokens(tokenizer: PreTrainedTokenizerBase, own_text: str) -> set[str]:
    """Return the added tokens that the template writes.

    Some tokenizers do not mark all of them as special, such as those of ChatML.
    """
    contents = (token.content for token in tokenizer.added_tokens_decoder.values())
    added = {content for content in contents if content.strip()}
    return {own_text[start:stop] for start, stop in TokenFinder(added).find(own_text)}
