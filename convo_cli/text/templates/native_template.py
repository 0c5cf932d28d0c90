"""The tokenizer's own chat template, split into pieces.

Chat templates are programs: they insert a system prompt of their own, call the assistant "model",
strip texts, or raise on roles that they do not accept. So their Jinja is not parsed. Instead, marks
are rendered in place of texts, once for each sequence of roles; everything between the marks is the
template's own text. A template or dialogue whose rendering these pieces do not reproduce is
refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, takewhile
from typing import TYPE_CHECKING

from convo_cli.config.schema import TemplateName
from convo_cli.data.dialogue import Role, Turn
from convo_cli.errors import DataError, ModelError
from convo_cli.text.bounded.rendering import Rendered, refusal, render_all
from convo_cli.text.templates.generation_marks import apply_marks
from convo_cli.text.templates.pieces import NO_TURN, Piece, special_tokens
from convo_cli.text.tokenizers.chat_template import own_chat_template
from convo_cli.text.tokenizers.vocabulary import TokenFinder
from convo_cli.wording import quoted

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARK = "\ufdd0{}\ufdd0"
"""Placeholder for a turn's text; no template contains this Unicode noncharacter."""
_GENERATION = re.compile(r"\{%[-+]?\s*generation\b")
_MAX_SHOWN = 100  # characters of a template's own text in an error


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


class NativeTemplate:
    """The tokenizer's own chat template; ModelError if it cannot be split into pieces.

    The assistant's words begin where the generation prompt ends and extend to the next special
    token, inclusive.
    """

    name: TemplateName = "native"
    special_tokens: tuple[str, ...] = ()

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.chat_template = own_chat_template(tokenizer)
        self._tokenizer = tokenizer
        self._has_generation_marks = _GENERATION.search(self.chat_template) is not None
        self._between = lru_cache(maxsize=512)(self._render_marks)
        self._form = lru_cache(maxsize=512)(self._find_form)
        try:
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
            probe = [Turn("user", "a"), Turn("assistant", "b")] * 2
            self.render(probe)
            gaps = self._find_gaps(tuple(turn.role for turn in probe), False)
            ends = [gap.rest[slice(*self._special.first(gap.rest))] for gap in gaps[2::2]]
        except DataError as error:
            raise ModelError(
                f"template native cannot be used: {error}",
                hint="train the model with dialogue.template: turns, or chatml",
            ) from error
        eos = tokenizer.eos_token
        self.stop_tokens = tuple(dict.fromkeys([*ends, *([str(eos)] if eos else [])]))

    def render(self, turns: Sequence[Turn], *, for_reply: bool = False) -> list[Piece]:
        (rendered,) = self._ask([turns], for_reply=for_reply)
        return self._pieces(turns, rendered, for_reply=for_reply)

    def render_all(self, dialogues: Sequence[Sequence[Turn]]) -> list[list[Piece] | DataError]:
        """Return the result or error of `render` for each dialogue, several times as fast."""
        results = list[list[Piece] | DataError]()
        for turns, rendered in zip(dialogues, self._ask(dialogues), strict=True):
            try:
                results.append(self._pieces(turns, rendered))
            except DataError as error:
                results.append(error)
        return results

    def _pieces(
        self, turns: Sequence[Turn], rendered: Rendered | DataError, *, for_reply: bool = False
    ) -> list[Piece]:
        """Return the pieces of a dialogue from the template's rendering of it."""
        if isinstance(rendered, DataError):
            raise rendered
        form = self._form(tuple([turn.role for turn in turns]), for_reply)
        pieces = list(form.pieces)
        for slot, turn in zip(form.slots, turns, strict=True):
            lead, index, _, is_target_text = pieces[slot]
            pieces[slot] = Piece(lead + turn.text, index, False, is_target_text)
        if "".join([piece.text for piece in pieces]) != rendered.text:
            raise refusal("changes the text of a turn")
        marked = self._has_generation_marks and not for_reply
        return apply_marks(pieces, rendered.spans, turns) if marked else pieces

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
        (rendered,) = self._ask([turns], for_reply=for_reply)
        if isinstance(rendered, DataError):
            raise rendered
        parts = re.split(f"({_MARK.format('[0-9]+')})", rendered.text)
        if parts[1::2] != marks:
            raise refusal("does not render every turn once and in order")
        return parts[::2]

    def _ask(
        self, dialogues: Sequence[Sequence[Turn]], *, for_reply: bool = False
    ) -> list[Rendered | DataError]:
        return render_all(
            self._tokenizer,
            self.chat_template,
            dialogues,
            for_reply=for_reply,
            has_marks=self._has_generation_marks,
        )

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
