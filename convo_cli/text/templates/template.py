"""Templates: rendering of a dialogue to pieces, for training, evaluation, chat and export alike.

A template renders turns to `Piece`s: special tokens, and text between them. Concatenated they are
exactly what the exported Jinja chat template renders; each piece states whether its characters are
targets. `convo_cli.text.encoder` turns them into ids.

    turns      <|user|>Hi<|end|><|assistant|>Hello!<|end|>
    chatml     <|im_start|>user⏎Hi<|im_end|>⏎<|im_start|>assistant⏎Hello!<|im_end|>⏎
    convmodel  <sep>Hi<sep>Hello!<sep>
    cls-sep    [CLS]Hi[SEP]Hello![SEP]eos
    native     the rendering of the tokenizer's own chat template
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from convo_cli.config.schema import TemplateName
from convo_cli.data.dialogue import ROLES, Role, Turn
from convo_cli.errors import DataError
from convo_cli.text.templates.jinja_source import text_literal, with_options
from convo_cli.text.templates.native_template import NativeTemplate
from convo_cli.text.templates.pieces import NO_TURN, Agreement, Piece, Template
from convo_cli.text.templates.tool_probes import no_place_for
from convo_cli.text.tokenizers.chat_template import own_chat_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class MarkedTemplate:
    """A template that marks turns with fixed tokens and texts."""

    name: TemplateName
    start: tuple[Piece, ...]
    openings: Mapping[Role, tuple[Piece, ...]]
    """The pieces before a turn's text, for each role that the template accepts."""
    end_token: str
    after_turn: str
    finish: str | None
    special_tokens: tuple[str, ...]
    stop_tokens: tuple[str, ...]
    chat_template: str
    options: dict[str, Any] = field(default_factory=dict)
    agreement: Agreement = "exact"

    @property
    def written_tokens(self) -> Collection[str]:
        return self.special_tokens

    def render(self, turns: Sequence[Turn], *, for_reply: bool = False) -> list[Piece]:
        pieces = list(self.start)
        for index, turn in enumerate(turns):
            if turn.uses_tools:
                raise no_place_for(turn, f"template {self.name}")
            if turn.role not in self.openings:
                raise DataError(
                    f"template {self.name} has no place for a {turn.role} turn",
                    hint="set dialogue.template: turns, or remove these turns from the data",
                )
            opening = self.openings[turn.role]
            pieces += [Piece(text, index, is_special) for text, _, is_special, _ in opening]
            pieces.append(Piece(turn.text, index, False, True))
            pieces.append(Piece(self.end_token, index, True, True))
            if self.after_turn:
                pieces.append(Piece(self.after_turn, index))
        if for_reply:
            pieces += [piece._replace(turn=len(turns)) for piece in self.openings["assistant"]]
        elif self.finish is not None:
            pieces.append(Piece(self.finish, len(turns) - 1, is_special=True, is_target_text=True))
        return pieces

    def render_all(self, dialogues: Sequence[Sequence[Turn]]) -> list[list[Piece] | DataError]:
        results = list[list[Piece] | DataError]()
        for turns in dialogues:
            try:
                results.append(self.render(turns))
            except DataError as error:
                results.append(error)
        return results


def chosen_name(name: TemplateName, tokenizer: PreTrainedTokenizerBase) -> TemplateName:
    """Return the name; ``auto`` is native if the tokenizer has a chat template, else turns."""
    if name != "auto":
        return name
    return "native" if tokenizer.chat_template else "turns"


def make_template(
    name: TemplateName,
    tokenizer: PreTrainedTokenizerBase,
    options: Mapping[str, Any] | None = None,
    agreement: Agreement = "exact",
) -> Template:
    """Build the template; only native has options and an agreement, chosen by `reply_modes`."""
    name = chosen_name(name, tokenizer)
    if name == "native":
        source = with_options(own_chat_template(tokenizer), options or {})
        return NativeTemplate(tokenizer, source, options, agreement)
    return TEMPLATES[name](tokenizer)


def _turns(tokenizer: PreTrainedTokenizerBase) -> MarkedTemplate:
    bos = _leading_bos(tokenizer)
    return MarkedTemplate(
        name="turns",
        start=_pieces(bos),
        openings={role: (Piece(f"<|{role}|>", 0, is_special=True),) for role in ROLES},
        end_token="<|end|>",
        after_turn="",
        finish=None,
        special_tokens=("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        stop_tokens=("<|end|>",),
        chat_template=_jinja(
            "{{- '<|' + message['role'] + '|>' + content + '<|end|>' }}",
            roles=ROLES,
            start=bos,
            prompt="<|assistant|>",
        ),
    )


def _chatml(tokenizer: PreTrainedTokenizerBase) -> MarkedTemplate:
    bos = _leading_bos(tokenizer)
    return MarkedTemplate(
        name="chatml",
        start=_pieces(bos),
        openings={
            role: (Piece("<|im_start|>", 0, is_special=True), Piece(f"{role}\n", 0))
            for role in ROLES
        },
        end_token="<|im_end|>",
        after_turn="\n",
        finish=None,
        special_tokens=("<|im_start|>", "<|im_end|>"),
        stop_tokens=("<|im_end|>",),
        chat_template=_jinja(
            "{{- '<|im_start|>' + message['role'] + '\\n' + content + '<|im_end|>\\n' }}",
            roles=ROLES,
            start=bos,
            prompt="<|im_start|>assistant\n",
        ),
    )


def _convmodel(_: PreTrainedTokenizerBase) -> MarkedTemplate:
    return MarkedTemplate(
        name="convmodel",
        start=(Piece("<sep>", NO_TURN, is_special=True),),
        openings={"user": (), "assistant": ()},
        end_token="<sep>",
        after_turn="",
        finish=None,
        special_tokens=("<sep>",),
        stop_tokens=("<sep>",),
        chat_template=_jinja(
            "{{- content + '<sep>' }}",
            roles=("user", "assistant"),
            start="<sep>",
            prompt="",
        ),
    )


def _cls_sep(tokenizer: PreTrainedTokenizerBase) -> MarkedTemplate:
    eos = str(tokenizer.eos_token or "<|endoftext|>")
    return MarkedTemplate(
        name="cls-sep",
        start=(Piece("[CLS]", NO_TURN, is_special=True),),
        openings={"user": (), "assistant": ()},
        end_token="[SEP]",
        after_turn="",
        finish=eos,
        special_tokens=("[CLS]", "[SEP]", eos),
        stop_tokens=("[SEP]", eos),
        chat_template=_jinja(
            "{{- content + '[SEP]' }}",
            roles=("user", "assistant"),
            start="[CLS]",
            prompt="",
            finish=eos,
        ),
    )


TEMPLATES: Mapping[TemplateName, Callable[[PreTrainedTokenizerBase], MarkedTemplate]] = {
    "turns": _turns,
    "chatml": _chatml,
    "convmodel": _convmodel,
    "cls-sep": _cls_sep,
}
"""convo's own templates; the tests in `tests/laws` cover all of them."""


_CONTENT = (
    "{%- if message['content'] is string %}{%- set content = message['content'] | trim %}"
    "{%- else %}{%- for part in message['content'] %}{%- if part['type'] != 'text' %}"
    "{{- raise_exception('no place for content of type ' + part['type']) }}"
    "{%- endif %}{%- endfor %}"
    "{%- set content = message['content'] | map(attribute='text') | select | join('\\n') | trim %}"
    "{%- endif %}"
)
"""Jinja source that sets ``content``: a text, or text parts joined as the reader joins them."""


def as_before_parts(chat_template: str) -> str:
    """Return the source of one of convo's templates as written before it accepted text parts.

    Folders of these versions hold it. Both render texts alike.
    """
    return chat_template.replace(_CONTENT, "").replace(" content ", " message['content'] | trim ")


def _jinja(message: str, *, roles: Sequence[str], start: str, prompt: str, finish: str = "") -> str:
    """Return Jinja source that renders the same text as the pieces.

    ``message`` is an expression that may use ``content``, the text of the message.
    """
    allowed = ", ".join(text_literal(role) for role in roles)
    lines = [
        f"{{{{- {text_literal(start)} }}}}" if start else "",
        "{%- for message in messages %}",
        f"{{%- if message['role'] not in [{allowed}] %}}",
        "{{- raise_exception('no place for role ' + message['role']) }}{%- endif %}",
        _CONTENT,
        message,
        "{%- endfor %}",
        "{%- if add_generation_prompt %}"
        + (f"{{{{- {text_literal(prompt)} }}}}" if prompt else ""),
        f"{{%- else %}}{{{{- {text_literal(finish)} }}}}" if finish else "",
        "{%- endif %}",
    ]
    return "".join(lines)


def _pieces(token: str) -> tuple[Piece, ...]:
    """Return the token before the first turn as a piece, if there is one."""
    return (Piece(token, NO_TURN, is_special=True),) if token else ()


def _leading_bos(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the beginning-of-sequence token if every text starts with it, else ''."""
    bos, ids = tokenizer.bos_token_id, tokenizer("a")["input_ids"]
    return str(tokenizer.bos_token) if bos is not None and ids[:1] == [bos] else ""
