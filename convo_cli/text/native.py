"""The tokenizer's own chat template, taken apart into pieces.

Chat templates are programs: they put in a system prompt of their own, call the assistant "model", strip texts, raise
on roles they do not like. So nothing is read out of their source; everything is learnt from what they render, and
what cannot be shown is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from convo_cli.config.schema import TemplateName
from convo_cli.data.dialogue import Role, Turn, as_messages
from convo_cli.errors import DataError, ModelError
from convo_cli.text.pieces import NO_TURN, Piece, special_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARK = "\ufdd0{}\ufdd0"  # stands for a turn's text; a Unicode noncharacter, which no template writes
_CLOCK = re.compile(r"""strftime_now\(\s*(?P<quote>["'])(?P<format>.*?)(?P=quote)\s*\)""")
_MAX_REASON = 300  # characters of what a template says about a dialogue


@dataclass(frozen=True, slots=True)
class Gap:
    """What a template writes between two texts: the rest of one turn, and the next turn's header.

    ``lead`` is what the next speaker says before its text: mostly nothing, or the space of its first word.
    """

    rest: str
    header: str = ""
    lead: str = ""


class NativeTemplate:
    """The tokenizer's own chat template, taken apart by proof instead of by reading its Jinja.

    Marks are rendered in place of texts, once for every sequence of roles; what stands between the marks is the
    template's own. What the assistant says begins where the generation prompt ends and goes up to the next special
    token. A template or dialogue for which any of this cannot be shown is refused.
    """

    name: TemplateName = "native"
    special_tokens: tuple[str, ...] = ()

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.chat_template = _without_clock(_default_chat_template(tokenizer))
        self._tokenizer = tokenizer
        self._between = lru_cache(maxsize=512)(self._render_marks)
        self._gaps = lru_cache(maxsize=512)(self._find_gaps)
        try:
            start, after_user = self._between(("user",), False)
            after_assistant = self._between(("user", "assistant"), False)[-1]
            question = self._between(("user", "assistant", "user"), False)[2]
            prompt = self._between(("user",), True)[-1]
            own_text = start + prompt + question + after_assistant
            self._special = _any_of(special_tokens(tokenizer) | _written_tokens(tokenizer, own_text))
            question = question[self._same_start(question, after_assistant) :]
            self._headers = {
                "user": question[len(question) - self._same_end(question, start) :].rstrip(" "),
                "assistant": prompt[self._same_start(prompt, after_user) :],
            }
            probe = self.render([Turn("user", "a"), Turn("assistant", "b")] * 2)
        except DataError as error:
            raise ModelError(
                f"template native cannot be used: {error}", hint="set dialogue.template: turns or chatml"
            ) from error
        ends = [piece.text for piece in probe if piece.turn % 2 and piece.is_special and piece.is_learnable]
        eos = tokenizer.eos_token
        self.stop_tokens = tuple(dict.fromkeys([*ends, *([str(eos)] if eos else [])]))

    def render(self, turns: Sequence[Turn], *, for_reply: bool = False) -> list[Piece]:
        *gaps, last = self._gaps(tuple(turn.role for turn in turns), for_reply)
        texts = [gap.rest + gap.header + gap.lead + turn.text for gap, turn in zip(gaps, turns, strict=True)]
        if "".join(texts) + last.rest + last.header != self._text(turns, for_reply=for_reply):
            raise _refusal("changes the text of a turn")
        pieces = self._split(gaps[0].rest, NO_TURN)
        for index, (turn, gap, after) in enumerate(zip(turns, gaps, [*gaps[1:], last], strict=True)):
            end = next((match.end() for match in self._special.finditer(after.rest)), 0)
            if turn.role == "assistant" and end == 0:
                raise _refusal("ends an assistant turn without a special token, so the model would never learn to stop")
            said = [Piece(gap.lead + turn.text, index), *self._split(after.rest[:end], index)]
            pieces += self._split(gap.header, index)
            pieces += (replace(piece, is_learnable=turn.role != "system") for piece in said)
            pieces += self._split(after.rest[end:], index)
        return pieces + self._split(last.header, len(turns))

    def _find_gaps(self, roles: tuple[Role, ...], for_reply: bool) -> list[Gap]:
        """The gap before each turn, and the one after the last."""
        between = self._between(roles, for_reply)
        gaps = []
        for index, (role, text) in enumerate(zip(roles, between, strict=False)):
            end = len(text.rstrip(" "))  # spaces before a text are part of its first word in most tokenizers
            if role == "assistant" and "user" in roles[:index]:
                *before, prompt = self._between(roles[:index], True)
                end = len(prompt)
                if before != between[:index] or not text.startswith(prompt):
                    raise _refusal("renders a reply otherwise than after its generation prompt")
                if text[end:].strip():
                    raise _refusal(f"makes the model say {text[end:]!r} before its reply")
            gaps.append(self._cut(text, end, role))
        return [*gaps, self._cut(between[-1], len(between[-1]), "assistant") if for_reply else Gap(between[-1])]

    def _cut(self, text: str, end: int, role: Role) -> Gap:
        """The header is what ends at ``end`` and stands before every turn of the role."""
        header = self._headers.get(role, "")
        begin = end - len(header) if text[:end].endswith(header) else end
        return Gap(text[:begin], text[begin:end], text[end:])

    def _render_marks(self, roles: tuple[Role, ...], for_reply: bool) -> list[str]:
        """What the template writes before, between and after the texts of such turns."""
        marks = [_MARK.format(index) for index in range(len(roles))]
        text = self._text([Turn(role, mark) for role, mark in zip(roles, marks, strict=True)], for_reply=for_reply)
        parts = re.split(f"({_MARK.format('[0-9]+')})", text)
        if parts[1::2] != marks:
            raise _refusal("does not render every turn once and in order")
        return parts[::2]

    def _text(self, turns: Sequence[Turn], *, for_reply: bool) -> str:
        try:
            rendered: Any = self._tokenizer.apply_chat_template(
                as_messages(turns), chat_template=self.chat_template, tokenize=False, add_generation_prompt=for_reply
            )
        except Exception as error:  # whatever Jinja, or an expression inside the template, raises
            reason = str(error)[:_MAX_REASON] or type(error).__name__
            raise _refusal(f"refuses such a dialogue: {reason}") from error
        return str(rendered)

    def _split(self, text: str, turn: int) -> list[Piece]:
        """Text of the template itself, cut at its special tokens."""
        pieces = []
        position = 0
        for match in self._special.finditer(text):
            pieces += [Piece(text[position : match.start()], turn), Piece(match.group(), turn, is_special=True)]
            position = match.end()
        pieces.append(Piece(text[position:], turn))
        return [piece for piece in pieces if piece.text]

    def _same_start(self, one: str, other: str) -> int:
        return _num_same(self._units(one), self._units(other))

    def _same_end(self, one: str, other: str) -> int:
        return _num_same(self._units(one)[::-1], self._units(other)[::-1])

    def _units(self, text: str) -> list[str]:
        """Special tokens whole, all else as characters."""
        return [unit for piece in self._split(text, 0) for unit in ([piece.text] if piece.is_special else piece.text)]


def _num_same(one: Sequence[str], other: Sequence[str]) -> int:
    """Length in characters of what two sequences of strings have in common at their start."""
    return sum(len(unit) for unit, _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _refusal(reason: str) -> DataError:
    return DataError(
        f"the chat template {reason}", hint="set dialogue.template: turns or chatml, or change the dialogue"
    )


def _default_chat_template(tokenizer: PreTrainedTokenizerBase) -> str:
    templates: Any = tokenizer.chat_template
    template = templates.get("default") if isinstance(templates, dict) else templates
    if not isinstance(template, str):
        raise ModelError(
            "dialogue.template is native, but this tokenizer has no chat template", hint="set dialogue.template: turns"
        )
    return template


def _without_clock(chat_template: str) -> str:
    """The template with today's date written into it, so that a run resumed tomorrow reads the same ids."""
    now = datetime.now()
    dated = _CLOCK.sub(lambda call: json.dumps(now.strftime(call["format"])), chat_template)
    if re.search(r"strftime_now\s*\(", dated):
        raise ModelError(
            "template native cannot be used: the chat template asks for the time in a form that convo cannot fix",
            hint="set dialogue.template: turns or chatml",
        )
    return dated


def _written_tokens(tokenizer: PreTrainedTokenizerBase, own_text: str) -> set[str]:
    """Added tokens that the template writes, also those that the tokenizer does not call special (some ChatML do)."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.content.strip()}
    return set(_any_of(added).findall(own_text))


def _any_of(tokens: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) or "(?!)")
