"""Forms of dialogues under a chat template: its own text around the texts of the turns.

Marks are rendered in place of texts, once for each sequence of shapes; everything between the marks
is the template's own text, which is cut at its special tokens and assigned to the turns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, takewhile
from typing import TYPE_CHECKING, Any, TypeAlias

from convo_cli.data.dialogue import Role, Turn
from convo_cli.errors import DataError
from convo_cli.text.bounded.rendering import Rendered, refusal
from convo_cli.text.templates.pieces import (
    NO_TURN,
    Agreement,
    MovedReplyError,
    Piece,
    special_tokens,
    written_tokens,
)
from convo_cli.text.templates.turn_shapes import Form, Shape, Slot
from convo_cli.text.tokenizers.vocabulary import MARK, TokenFinder
from convo_cli.wording import quoted

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TEXT = MARK + "{}" + MARK
"""Placeholder for a turn's text; no template contains this Unicode noncharacter."""
_THOUGHT = MARK + "{}t" + MARK
"""Placeholder for the reasoning in a turn's text."""
_TEXTS = re.compile(_TEXT.format("([0-9]+)"))
_MARKS = re.compile(f"({MARK}[0-9]+t?{MARK})")
_SYSTEM = _TEXT.format(0)
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
    """The part that belongs to the second turn's text: its reasoning, or a space before it."""


class FormFinder:
    """Finds the form of each sequence of shapes; DataError if the template has none for it."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, ask: Ask, agreement: Agreement) -> None:
        self._ask = ask
        self._agreement = agreement
        self._create_caches()
        user, assistant = Shape("user"), Shape("assistant")
        start, after_user = self._between((user,), False)
        after_assistant = self._between((user, assistant), False)[-1]
        question = self._between((user, assistant, user), False)[2]
        prompt = self._between((user,), True)[-1]
        own_text = start + prompt + question + after_assistant
        self.written_tokens = written_tokens(tokenizer, own_text)
        self._special = TokenFinder(special_tokens(tokenizer) | self.written_tokens)
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
        self.headers = {"user": asks, "assistant": answers}

    def _create_caches(self) -> None:
        self._between = lru_cache(maxsize=512)(self._render_marks)
        self.form = lru_cache(maxsize=512)(self._find_form)

    def __getstate__(self) -> dict[str, Any]:
        # Worker processes get a pickled copy, and lru_cache cannot be pickled.
        return {name: one for name, one in vars(self).items() if name not in ("_between", "form")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._create_caches()

    def text_before_reply(self) -> str:
        """Return what the template writes between a question and its reply; DataError if unclear.

        The end of the question, which the template also writes without a reply, does not count.
        """
        asked = self._between((Shape("user"),), False)
        answered = self._between((Shape("user"), Shape("assistant")), False)
        if answered[0] != asked[0] or not answered[1].startswith(asked[1]):
            raise refusal("writes a question differently if a reply follows")
        return answered[1][len(asked[1]) :].rstrip(" ")

    def ends(self, shapes: tuple[Shape, ...]) -> list[str]:
        """Return the special tokens that end the replies of a dialogue with these shapes."""
        gaps = self._find_gaps(shapes, False)[1:]
        rests = [gap.rest for one, gap in zip(shapes, gaps, strict=True) if one.role == "assistant"]
        return [rest[slice(*self._special.first(rest))] for rest in rests]

    def _find_form(self, shapes: tuple[Shape, ...], for_reply: bool) -> Form:
        *gaps, last = self._find_gaps(shapes, for_reply)
        is_folded = any(_SYSTEM in gap.rest + gap.header for gap in gaps)
        pieces = self._split(gaps[0].rest, NO_TURN)
        for index, (shape, gap, after) in enumerate(
            zip(shapes, gaps, [*gaps[1:], last], strict=True)
        ):
            _, end = self._special.first(after.rest)
            if shape.is_trained and end == 0:
                raise refusal(
                    "ends an assistant turn without a special token, so the model would never "
                    "learn to stop"
                )
            pieces += self._split(gap.header, index)
            mark = "" if is_folded and index == 0 else _TEXT.format(index)
            said = [*self._split(gap.lead + mark, index), *self._split(after.rest[:end], index)]
            said = said or [Piece("", index)]
            pieces += [piece._replace(is_target_text=shape.role != "system") for piece in said]
            pieces += self._split(after.rest[end:], index)
        pieces += self._split(last.header, len(shapes))
        slots = list[Slot]()
        for number, piece in enumerate(pieces):
            if found := _MARKS.search(piece.text):
                name = found[1].strip(MARK)
                slots.append(Slot(number, int(name.rstrip("t")), name.endswith("t")))
                pieces[number] = piece._replace(text=piece.text[: found.start()])
        return Form(tuple(pieces), tuple(slots))

    def _find_gaps(self, shapes: tuple[Shape, ...], for_reply: bool) -> list[Gap]:
        """Return the gap before each turn, and the one after the last."""
        between = self._between(shapes, for_reply)
        gaps = [
            self._gap(text, self._end_of_header(shapes, between, index), shape.role)
            for index, (shape, text) in enumerate(zip(shapes, between, strict=False))
        ]
        last = between[-1]
        return [*gaps, self._gap(last, len(last), "assistant") if for_reply else Gap(last)]

    def _end_of_header(self, shapes: tuple[Shape, ...], between: Sequence[str], index: int) -> int:
        """Return where a speaker's words begin in the gap before them."""
        shape, text = shapes[index], between[index]
        thought = text.find(_THOUGHT.format(index)) if shape.has_thought else -1
        # In most tokenizers, spaces before a text are part of its first word.
        end = len(text.rstrip(" "))
        if thought >= 0:
            end = len(text[:thought].removesuffix(shape.opening).rstrip(" "))
        if shape.is_trained and shape.has_thought and thought < 0:
            raise _moved("drops the reasoning of a reply that is trained on")
        if shape.role != "assistant" or all(one.role != "user" for one in shapes[:index]):
            return end
        try:
            *before, prompt = self._between(shapes[:index], True)
        except DataError:
            if shape.is_trained:
                raise
            return end
        if before != list(between[:index]) or not text.startswith(prompt):
            if shape.is_trained and self._agreement != "none":
                raise _moved("begins a reply differently from its generation prompt")
            return end
        added = text[len(prompt) :]
        if thought >= len(prompt) or not added.strip():
            return len(prompt)
        if shape.is_trained and self._agreement == "exact":
            shown = quoted(added, _MAX_SHOWN)
            raise _moved(f"writes {shown} before a reply, but not in its generation prompt")
        return end

    def _gap(self, text: str, end: int, role: Role) -> Gap:
        """Split a gap; its header, up to ``end``, is the text before every turn of the role."""
        header, begin = self.headers.get(role, ""), end
        if header and text[:end].endswith(header):
            begin = len(text[: end - len(header)].rstrip(" "))
        elif header and _SYSTEM in text[:end]:
            begin = max(0, text.rfind(header, 0, text.find(_SYSTEM)))
        return Gap(text[:begin], text[begin:end], text[end:])

    def _render_marks(self, shapes: tuple[Shape, ...], for_reply: bool) -> list[str]:
        """Return the template's own text before, between and after turns with these shapes.

        A system text that the template writes later than its turn stays a mark there, and so does
        reasoning.
        """
        turns = []
        for index, (role, _, opening, closing, has_thought) in enumerate(shapes):
            thought = _THOUGHT.format(index) if has_thought else ""
            turns.append(Turn(role, f"{opening}{thought}{closing}{_TEXT.format(index)}"))
        rendered = self._ask(turns, for_reply)
        if isinstance(rendered, DataError):
            raise rendered
        parts = _TEXTS.split(rendered.text)
        numbers = [int(number) for number in parts[1::2]]
        if shapes[0].role == "system" and numbers[:1] != [0] and numbers.count(0) == 1:
            where = 2 * numbers.index(0)
            parts[where : where + 3] = [parts[where] + _SYSTEM + parts[where + 2]]
            parts[:0] = ["", "0"]
            numbers = [int(number) for number in parts[1::2]]
        if numbers != list(range(len(shapes))):
            raise refusal("does not render every turn once and in order")
        return parts[::2]

    def _split(self, text: str, turn: int) -> list[Piece]:
        """Cut the template's own text at its special tokens, and after marks."""
        pieces = list[Piece]()
        for part in _MARKS.sub(r"\1\0", text).split("\0"):
            position = 0
            for start, stop in self._special.find(part):
                pieces.append(Piece(part[position:start], turn))
                pieces.append(Piece(part[start:stop], turn, is_special=True))
                position = stop
            pieces.append(Piece(part[position:], turn))
        return [piece for piece in pieces if piece.text]

    def _same_start(self, one: str, other: str) -> int:
        return _num_same(self._units(one), self._units(other))

    def _same_end(self, one: str, other: str) -> int:
        return _num_same(self._units(one)[::-1], self._units(other)[::-1])

    def _units(self, text: str) -> list[str]:
        """Split a text into special tokens and single characters."""
        units = ([piece.text] if piece.is_special else piece.text for piece in self._split(text, 0))
        return list(chain.from_iterable(units))


def _moved(reason: str) -> MovedReplyError:
    error = refusal(reason)
    return MovedReplyError(error.message, hint=error.hint)


def _num_same(one: Sequence[str], other: Sequence[str]) -> int:
    """Return the length of the common start of two sequences of strings, in characters."""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return sum(len(unit) for unit, _ in same)
