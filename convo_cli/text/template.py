"""How a dialogue becomes pieces of text: the one definition behind training, evaluation, chat and export.

A template renders turns to `Piece`s: special tokens, and text between them. Concatenated they are exactly what the
exported Jinja chat template renders; piece by piece they say which characters are targets. `convo_cli.text.encoder`
turns them into ids.

    turns      <|user|>Hi<|end|><|assistant|>Hello!<|end|>
    chatml     <|im_start|>user⏎Hi<|im_end|>⏎<|im_start|>assistant⏎Hello!<|im_end|>⏎
    convmodel  <sep>Hi<sep>Hello!<sep>
    cls-sep    [CLS]Hi[SEP]Hello![SEP]eos
    native     whatever the tokenizer's own chat template renders
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from convo_cli.config.schema import TemplateName
from convo_cli.data.dialogue import Role, Turn, as_messages
from convo_cli.errors import DataError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NO_TURN = -1
"""The turn index of pieces before the first turn: they start every window."""
_SENTINEL = "\ufdd0convo\ufdd0"  # a text no dialogue contains (Unicode noncharacters), to find where a turn's text goes


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of the rendered dialogue. ``is_learnable`` marks what its speaker says: the text and its end token."""

    text: str
    turn: int
    is_special: bool = False
    is_learnable: bool = False


class Template(Protocol):
    """What the rest of convo needs of a template."""

    @property
    def name(self) -> TemplateName:
        """Its name in the config."""
        ...

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Tokens that must each be one id; those the tokenizer lacks are added to it."""
        ...

    @property
    def stop_tokens(self) -> tuple[str, ...]:
        """Tokens that end a reply; the first one ends every trained turn."""
        ...

    @property
    def chat_template(self) -> str:
        """The same rendering as Jinja, for transformers and whoever reads its folders."""
        ...

    def render(self, turns: Sequence[Turn], *, for_reply: bool = False) -> list[Piece]:
        """The pieces of a dialogue; ``for_reply``: ending where the assistant's next text begins."""
        ...


@dataclass(frozen=True, slots=True)
class MarkedTemplate:
    """A template that marks turns with fixed tokens and texts."""

    name: TemplateName
    start: tuple[Piece, ...]
    opening: Callable[[Role], tuple[Piece, ...]]
    end_token: str
    after_turn: str
    finish: str | None
    roles: frozenset[Role]
    special_tokens: tuple[str, ...]
    stop_tokens: tuple[str, ...]
    chat_template: str

    def render(self, turns: Sequence[Turn], *, for_reply: bool = False) -> list[Piece]:
        pieces = list(self.start)
        for index, turn in enumerate(turns):
            if turn.role not in self.roles:
                raise DataError(
                    f"template {self.name} has no place for a {turn.role} turn",
                    hint="set dialogue.template: turns, or remove these turns from the data",
                )
            pieces += (Piece(p.text, index, p.is_special) for p in self.opening(turn.role))
            pieces.append(Piece(turn.text, index, is_learnable=True))
            pieces.append(Piece(self.end_token, index, is_special=True, is_learnable=True))
            if self.after_turn:
                pieces.append(Piece(self.after_turn, index))
        if for_reply:
            pieces += (Piece(p.text, len(turns), p.is_special) for p in self.opening("assistant"))
        elif self.finish is not None:
            pieces.append(Piece(self.finish, len(turns) - 1, is_special=True, is_learnable=True))
        return pieces


class NativeTemplate:
    """The tokenizer's own chat template, taken apart by rendering prefixes and proving that they concatenate."""

    name: TemplateName = "native"
    special_tokens: tuple[str, ...] = ()

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not isinstance(tokenizer.chat_template, str):
            raise ModelError(
                "dialogue.template is native, but this tokenizer has no chat template",
                hint="set dialogue.template: turns",
            )
        self.chat_template = tokenizer.chat_template
        self._tokenizer = tokenizer
        self._special = re.compile(
            "|".join(re.escape(t) for t in sorted(special_tokens(tokenizer), key=len, reverse=True))
        )
        probe = self.render([Turn("user", "a"), Turn("assistant", "b")])
        ends = [piece.text for piece in probe if piece.turn == 1 and piece.is_special and piece.is_learnable]
        if not ends:
            raise ModelError(
                "this tokenizer's chat template ends an assistant turn without a special token, so a model trained "
                "with it would never learn to stop",
                hint="set dialogue.template: turns or chatml",
            )
        eos = tokenizer.eos_token
        self.stop_tokens = tuple(dict.fromkeys([ends[-1], *([str(eos)] if eos else [])]))

    def render(self, turns: Sequence[Turn], *, for_reply: bool = False) -> list[Piece]:
        whole = self._text(turns, for_reply=for_reply)
        pieces: list[Piece] = []
        begin = 0
        for index in range(len(turns)):
            end = self._prove_prefix(whole, self._text(turns[: index + 1]))
            pieces += self._take_apart(whole[begin:end], turns[: index + 1], begin)
            begin = end
        pieces += self._split(whole[begin:], len(turns) if for_reply else len(turns) - 1)
        return pieces

    def _take_apart(self, stretch: str, turns: Sequence[Turn], offset: int) -> list[Piece]:
        """The last turn's stretch of the rendering as header, spoken text, end token, and what follows it."""
        turn, index = turns[-1], len(turns) - 1
        marked = self._text([*turns[:-1], Turn(turn.role, _SENTINEL)])
        said = marked.find(_SENTINEL) - offset
        if said < 0 or not stretch.startswith(turn.text, said):
            raise self._refusal(f"it changes the text of the {turn.role} turn")
        answers = turn.role == "assistant" and index > 0
        if answers and len(self._text(turns[:-1], for_reply=True)) != said + offset:
            raise self._refusal("its generation prompt does not end where the assistant's text begins")
        text_end = said + len(turn.text)
        end_token = self._special.search(stretch, text_end)
        stop = end_token.end() if end_token else text_end
        header = self._split(stretch[:said], index)
        if index == 0 and turn.role != "system":
            # What a template puts before the first turn of its own accord (a default system prompt) starts every
            # window; the turn's own header begins at the last special token.
            own = max((k for k, piece in enumerate(header) if piece.is_special), default=0)
            header[:own] = [replace(piece, turn=NO_TURN) for piece in header[:own]]
        spoken = [Piece(turn.text, index), *self._split(stretch[text_end:stop], index)]
        return [
            *header,
            *(replace(piece, is_learnable=True) for piece in spoken),
            *self._split(stretch[stop:], index),
        ]

    def _split(self, text: str, turn: int) -> list[Piece]:
        """Text of the template itself, cut at its special tokens."""
        pieces = []
        position = 0
        for match in self._special.finditer(text):
            pieces += [Piece(text[position : match.start()], turn), Piece(match.group(), turn, is_special=True)]
            position = match.end()
        pieces.append(Piece(text[position:], turn))
        return [piece for piece in pieces if piece.text]

    def _prove_prefix(self, whole: str, prefix: str) -> int:
        if not whole.startswith(prefix):
            raise self._refusal("the rendering of its first turns is not the beginning of the whole rendering")
        return len(prefix)

    def _text(self, turns: Sequence[Turn], *, for_reply: bool = False) -> str:
        from jinja2 import TemplateError

        try:
            rendered: Any = self._tokenizer.apply_chat_template(
                as_messages(turns), tokenize=False, add_generation_prompt=for_reply
            )
        except TemplateError as error:
            raise DataError(
                f"the chat template refuses this dialogue: {error}", hint="set dialogue.template: turns or chatml"
            ) from error
        return str(rendered)

    def _refusal(self, reason: str) -> ModelError:
        return ModelError(
            f"this tokenizer's chat template cannot be used for training: {reason}",
            hint="set dialogue.template: turns or chatml",
        )


def make_template(name: TemplateName, tokenizer: PreTrainedTokenizerBase) -> Template:
    """Build the template; ``auto`` is native where the tokenizer has a chat template, else turns."""
    if name == "auto":
        name = "native" if tokenizer.chat_template else "turns"
    if name == "native":
        return NativeTemplate(tokenizer)
    bos = _leading_bos(tokenizer)
    start = (Piece(bos, NO_TURN, is_special=True),) if bos else ()
    if name == "turns":
        return _turns(bos, start)
    if name == "chatml":
        return _chatml(bos, start)
    if name == "convmodel":
        return _convmodel()
    return _cls_sep(str(tokenizer.eos_token or "<|endoftext|>"))


def _turns(bos: str, start: tuple[Piece, ...]) -> MarkedTemplate:
    return MarkedTemplate(
        name="turns",
        start=start,
        opening=lambda role: (Piece(f"<|{role}|>", 0, is_special=True),),
        end_token="<|end|>",
        after_turn="",
        finish=None,
        roles=frozenset({"system", "user", "assistant"}),
        special_tokens=("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        stop_tokens=("<|end|>",),
        chat_template=_jinja(
            "{{- '<|' + message['role'] + '|>' + message['content'] | trim + '<|end|>' }}",
            roles=("system", "user", "assistant"),
            start=bos,
            prompt="<|assistant|>",
        ),
    )


def _chatml(bos: str, start: tuple[Piece, ...]) -> MarkedTemplate:
    return MarkedTemplate(
        name="chatml",
        start=start,
        opening=lambda role: (Piece("<|im_start|>", 0, is_special=True), Piece(f"{role}\n", 0)),
        end_token="<|im_end|>",
        after_turn="\n",
        finish=None,
        roles=frozenset({"system", "user", "assistant"}),
        special_tokens=("<|im_start|>", "<|im_end|>"),
        stop_tokens=("<|im_end|>",),
        chat_template=_jinja(
            "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>\\n' }}",
            roles=("system", "user", "assistant"),
            start=bos,
            prompt="<|im_start|>assistant\\n",
        ),
    )


def _convmodel() -> MarkedTemplate:
    return MarkedTemplate(
        name="convmodel",
        start=(Piece("<sep>", NO_TURN, is_special=True),),
        opening=lambda role: (),
        end_token="<sep>",
        after_turn="",
        finish=None,
        roles=frozenset({"user", "assistant"}),
        special_tokens=("<sep>",),
        stop_tokens=("<sep>",),
        chat_template=_jinja(
            "{{- message['content'] | trim + '<sep>' }}", roles=("user", "assistant"), start="<sep>", prompt=""
        ),
    )


def _cls_sep(eos: str) -> MarkedTemplate:
    return MarkedTemplate(
        name="cls-sep",
        start=(Piece("[CLS]", NO_TURN, is_special=True),),
        opening=lambda role: (),
        end_token="[SEP]",
        after_turn="",
        finish=eos,
        roles=frozenset({"user", "assistant"}),
        special_tokens=("[CLS]", "[SEP]", eos),
        stop_tokens=("[SEP]", eos),
        chat_template=_jinja(
            "{{- message['content'] | trim + '[SEP]' }}",
            roles=("user", "assistant"),
            start="[CLS]",
            prompt="",
            finish=eos,
        ),
    )


def _jinja(message: str, *, roles: Sequence[str], start: str, prompt: str, finish: str = "") -> str:
    """The Jinja source that renders what the pieces concatenate to."""
    allowed = ", ".join(f"'{role}'" for role in roles)
    lines = [
        f"{{{{- '{start}' }}}}" if start else "",
        "{%- for message in messages %}",
        f"{{%- if message['role'] not in [{allowed}] %}}",
        "{{- raise_exception('no place for role ' + message['role']) }}{%- endif %}",
        message,
        "{%- endfor %}",
        "{%- if add_generation_prompt %}" + (f"{{{{- '{prompt}' }}}}" if prompt else ""),
        f"{{%- else %}}{{{{- '{finish}' }}}}" if finish else "",
        "{%- endif %}",
    ]
    return "".join(lines)


def _leading_bos(tokenizer: PreTrainedTokenizerBase) -> str:
    """The beginning-of-sequence token where the tokenizer itself starts every text with it, else ''."""
    ids = tokenizer("a")["input_ids"]
    return str(tokenizer.bos_token) if tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id else ""


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """Every string that the tokenizer turns into one special id."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return added | {str(token) for token in tokenizer.all_special_tokens}
