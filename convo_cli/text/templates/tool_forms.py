"""Dialogues with tool calls under a chat template: what it knows of tools, and their pieces.

Probes show what a template knows. Marks are rendered in place of the texts, with the definitions
and calls of the dialogue itself, which are the template's own text, because each template writes
them in its own way. So a call that spells a special token is refused: it could not be told from a
token of the template. Results of tools are texts, also where a template writes them as JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from convo_cli.data.dialogue import Turn, tool_definitions
from convo_cli.errors import DataError
from convo_cli.text.bounded.rendering import refusal
from convo_cli.text.templates.dialogue_forms import FormFinder
from convo_cli.text.templates.pieces import (
    NO_TURN,
    MovedReplyError,
    Piece,
    special_tokens,
    written_tokens,
)
from convo_cli.text.templates.tool_probes import Ask, ToolKnowledge, calls_in, name_of
from convo_cli.text.templates.turn_shapes import REASONING_TAGS
from convo_cli.text.tokenizers.vocabulary import TokenFinder
from convo_cli.wording import quoted

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARK = "\ufdd0{}\ufdd0"
_MARKS = re.compile(_MARK.format("([0-9]+)"))


class ToolForms:
    """Splits dialogues with tool calls into pieces; only replies and user turns are targets."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, ask: Ask, plain: FormFinder) -> None:
        self._ask = ask
        self._headers = plain.headers
        self._knowledge = ToolKnowledge(ask)
        own_text = self._knowledge.own_text
        # The tags of reasoning stay text, as in dialogues without tools, unless a prompt has them.
        written = written_tokens(tokenizer, own_text) - REASONING_TAGS
        self.written_tokens = written | plain.written_tokens
        self._special = TokenFinder(special_tokens(tokenizer) | self.written_tokens)

    def pieces(self, turns: Sequence[Turn], text: str, *, for_reply: bool) -> list[Piece]:
        """Return the pieces of a dialogue that the template renders as ``text``."""
        self._knowledge.require(turns)
        own = self._own_texts(turns, for_reply)
        self._require_plain(turns, "".join(own))
        for said in _spellings(turns):
            pieces = self._assemble(turns, own, said, for_reply)
            if "".join([piece.text for piece in pieces]) == text:
                return _joined(pieces, turns)
        raise refusal("changes the text of a turn")

    def _require_plain(self, turns: Sequence[Turn], own: str) -> None:
        """Raise DataError for a call that spells a token of the template, or is left out."""
        for turn in turns:
            data = tool_definitions([turn]) if turn.role == "tools" else calls_in(turn)
            for text in _strings(data):
                found = self._special.find(text) or self._special.find(json.dumps(text))
                if found:
                    what = name_of(turn)
                    message = f"cannot write {what} that spells a special token: {quoted(text)}"
                    raise refusal(message)
            for call in calls_in(turn):
                name = call["function"]["name"]
                if name not in own and json.dumps(name)[1:-1] not in own:
                    raise refusal(f"leaves out the call of {quoted(name)}")

    def _own_texts(self, turns: Sequence[Turn], for_reply: bool) -> list[str]:
        """Return the template's own text before, between and after all turns."""
        *parts, last = _MARKS.split(self._marked(turns, for_reply))
        expected = [str(index) for index, turn in enumerate(turns) if _has_slot(turn)]
        if parts[1::2] != expected:
            raise refusal("does not render every turn once and in order")
        texts, rest, own = [*parts[2::2], last], parts[0] if parts else last, list[str]()
        for turn in turns:
            if _has_slot(turn):
                own.append(rest)
                rest = texts.pop(0)
            else:
                # A call without a text begins where the turn before it has ended.
                end = 0 if turn.role == "tools" else self._special.first(rest)[1]
                own.append(rest[:end])
                rest = rest[end:]
        return [*own, rest]

    def _marked(self, turns: Sequence[Turn], for_reply: bool) -> str:
        marked = [
            replace(turn, text=_MARK.format(index)) if _has_slot(turn) else turn
            for index, turn in enumerate(turns)
        ]
        rendered = self._ask(marked, for_reply)
        if isinstance(rendered, DataError):
            raise rendered
        return rendered.text

    def _assemble(
        self, turns: Sequence[Turn], own: Sequence[str], said: Sequence[str], for_reply: bool
    ) -> list[Piece]:
        pieces = list[Piece]()
        for index, turn in enumerate(turns):
            before, begin, end = own[index], *self._header(turns, own, index)
            if index == 0:
                pieces += self._split(before[:begin], NO_TURN)
            elif turns[index - 1].role in ("user", "assistant") and _has_slot(turns[index - 1]):
                _, stop = self._special.first(before[:begin])
                ended = self._split(before[:stop], index - 1)
                if turns[index - 1].is_reply and not stop:
                    raise refusal("ends an assistant turn without a special token")
                is_said = not turns[index - 1].uses_tools
                pieces += [piece._replace(is_target_text=is_said) for piece in ended]
                pieces += self._split(before[stop:begin], index - 1)
            else:
                pieces += self._split(before[:begin], index - 1)
            pieces += self._split(before[begin:end], index)
            is_target = turn.role == "user" or turn.is_reply
            pieces.append(Piece(before[end:] + said[index], index, False, is_target))
        last, index = own[-1], len(turns) - 1
        header = self._headers.get("assistant", "")
        cut = len(last) - len(header) if for_reply and last.endswith(header) else len(last)
        _, stop = self._special.first(last[:cut])
        is_said = turns[-1].role == "user" or turns[-1].is_reply
        ended = self._split(last[:stop], index)
        pieces += [piece._replace(is_target_text=is_said) for piece in ended]
        return [*pieces, *self._split(last[stop:cut], index), *self._split(last[cut:], index + 1)]

    def _header(self, turns: Sequence[Turn], own: Sequence[str], index: int) -> tuple[int, int]:
        """Return where the header of a turn begins and ends in the own text before it."""
        text, turn = own[index], turns[index]
        end = len(text.rstrip(" "))
        if turn.is_reply and any(one.role == "user" for one in turns[:index]):
            *before, prompt = self._own_texts(turns[:index], True)
            added = text[len(prompt) :]
            if [*before, prompt] == [*own[:index], text[: len(prompt)]] and not added.strip():
                end = len(prompt)
            elif turn.is_trained:
                error = refusal("begins a reply differently from its generation prompt")
                raise MovedReplyError(error.message, hint=error.hint)
        header = self._headers.get(turn.role, "")
        if header and text[:end].endswith(header):
            return len(text[: end - len(header)].rstrip(" ")), end
        return (self._special.first(text[:end])[1] if turn.role != "tool" else end), end

    def _split(self, text: str, turn: int) -> list[Piece]:
        """Cut the template's own text at its special tokens."""
        pieces, position = list[Piece](), 0
        for start, stop in self._special.find(text):
            pieces += [Piece(text[position:start], turn), Piece(text[start:stop], turn, True)]
            position = stop
        return [piece for piece in (*pieces, Piece(text[position:], turn)) if piece.text]


def _joined(pieces: Sequence[Piece], turns: Sequence[Turn]) -> list[Piece]:
    """Join context between two special tokens, so that it is encoded as one text.

    A result may end in a letter that the tokenizer joins with the template's text after it. Every
    turn keeps a piece.
    """
    joined = list[Piece]()
    for piece in pieces:
        before = joined[-1] if joined else None
        is_text = before and not (before.is_special or piece.is_special)
        if before and is_text and not (before.is_target_text or piece.is_target_text):
            joined[-1] = before._replace(text=before.text + piece.text)
            if piece.turn != before.turn:
                joined.append(Piece("", piece.turn))
        else:
            joined.append(piece)
    return joined


def _has_slot(turn: Turn) -> bool:
    return turn.role == "tool" or (turn.role != "tools" and bool(turn.text))


def _spellings(turns: Sequence[Turn]) -> Iterator[list[str]]:
    """Yield the texts of the slots: as they are, then with the results as JSON strings."""
    texts = ["" if turn.role == "tools" else turn.text for turn in turns]
    yield texts
    yield [
        json.dumps(text, ensure_ascii=False)[1:-1] if turn.role == "tool" else text
        for turn, text in zip(turns, texts, strict=True)
    ]


def _strings(value: Any) -> Iterator[str]:
    """Yield every string in a JSON value, keys among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        yield from value if isinstance(value, dict) else ()
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)
