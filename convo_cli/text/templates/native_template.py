"""The tokenizer's own chat template, split into pieces.

Chat templates are programs: they insert a system prompt of their own, call the assistant "model",
strip texts, or raise on roles that they do not accept. So their Jinja is not parsed;
`dialogue_forms` finds their own text by rendering marks. A template or dialogue whose rendering
these pieces do not reproduce is refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from convo_cli.config.schema import TemplateName
from convo_cli.data.dialogue import Turn
from convo_cli.errors import DataError, ModelError
from convo_cli.text.bounded.rendering import Rendered, refusal, render_all
from convo_cli.text.templates.dialogue_forms import FormFinder
from convo_cli.text.templates.generation_marks import apply_marks
from convo_cli.text.templates.pieces import Agreement, Piece, special_tokens
from convo_cli.text.templates.tool_forms import ToolForms
from convo_cli.text.templates.turn_shapes import (
    Shape,
    parts_of,
    shapes_of,
    spoken_tokens,
    with_thoughts,
)
from convo_cli.text.tokenizers.vocabulary import TokenFinder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_GENERATION = re.compile(r"\{%[-+]?\s*generation\b")


class NativeTemplate:
    """The tokenizer's own chat template; ModelError if it cannot be split into pieces.

    The assistant's words begin where the generation prompt ends, or where ``agreement`` says, and
    extend to the next special token, inclusive.
    """

    name: TemplateName = "native"
    special_tokens: tuple[str, ...] = ()

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        chat_template: str,
        options: Mapping[str, Any] | None = None,
        agreement: Agreement = "exact",
    ) -> None:
        self.chat_template = chat_template
        self.options = dict(options or {})
        self.agreement = agreement
        self._tokenizer = tokenizer
        self._has_generation_marks = _GENERATION.search(self.chat_template) is not None
        try:
            self._forms = FormFinder(tokenizer, self._ask_one, agreement)
            self._tools = ToolForms(tokenizer, self._ask_one, self._forms)
            ends = self._forms.ends((Shape("user"), Shape("assistant")) * 2)
        except DataError as error:
            raise ModelError(
                f"template native cannot be used: {error}",
                hint="train the model with dialogue.template: turns, or chatml",
            ) from error
        self.text_before_reply = self._forms.text_before_reply
        known = special_tokens(tokenizer) | set(self.written_tokens)
        self._tags = TokenFinder(known & spoken_tokens(agreement))
        eos = [str(tokenizer.eos_token)] if tokenizer.eos_token else []
        self.stop_tokens = tuple(dict.fromkeys(token for token in (*ends, *eos) if token))

    @property
    def written_tokens(self) -> Collection[str]:
        return self._tools.written_tokens

    def render(self, turns: Sequence[Turn], *, for_reply: bool = False) -> list[Piece]:
        return self._pieces(turns, self._ask_one(turns, for_reply), for_reply=for_reply)

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
        if any(turn.uses_tools for turn in turns):
            pieces = self._tools.pieces(turns, rendered.text, for_reply=for_reply)
        else:
            pieces = self._plain_pieces(turns, rendered.text, for_reply=for_reply)
        marked = self._has_generation_marks and not for_reply
        pieces = apply_marks(pieces, rendered.spans, turns) if marked else pieces
        if self.agreement != "prefix":
            return pieces
        return list(chain.from_iterable([self._cut_at_tags(piece, turns) for piece in pieces]))

    def _cut_at_tags(self, piece: Piece, turns: Sequence[Turn]) -> list[Piece]:
        """Cut a reply at the tags of its reasoning, which are tokens as those of the template."""
        is_reply = piece.is_target_text and turns[piece.turn].role == "assistant"
        found = self._tags.find(piece.text) if is_reply and not piece.is_special else []
        cut, position = list[Piece](), 0
        for start, stop in found:
            said = piece._replace(text=piece.text[position:start])
            tag = piece._replace(text=piece.text[start:stop], is_special=True)
            cut += [said, tag] if said.text else [tag]
            position = stop
        rest = piece._replace(text=piece.text[position:])
        return [*cut, rest] if rest.text or not cut else cut

    def _plain_pieces(self, turns: Sequence[Turn], text: str, *, for_reply: bool) -> list[Piece]:
        """Return the pieces of a dialogue without tools."""
        shapes = shapes_of(turns, for_reply=for_reply)
        try:
            return _matching(self._forms.form(shapes, for_reply).filled(turns), text)
        except DataError:
            parts = parts_of(turns)
            if not any(one.closing for one in parts):
                raise
            form = self._forms.form(with_thoughts(shapes, parts), for_reply)
            return _matching(form.filled(turns, parts), text)

    def _ask_one(self, turns: Sequence[Turn], for_reply: bool) -> Rendered | DataError:
        (rendered,) = self._ask([turns], for_reply=for_reply)
        return rendered

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


def _matching(pieces: list[Piece], text: str) -> list[Piece]:
    """Return the pieces; DataError if they are not the rendered text."""
    if "".join([piece.text for piece in pieces]) != text:
        raise refusal("changes the text of a turn")
    return pieces
