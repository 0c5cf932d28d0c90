"""Modelfile: what Ollama reads beside a GGUF file.

Ollama renders ``.Messages`` for /api/chat and /api/generate alike, with any system prompt as the
first message. So a TEMPLATE needs no ``.System``, ``.Prompt`` or ``.Response``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from convo_cli.config.schema import GenerationSettings
from convo_cli.data.dialogue import Turn
from convo_cli.events import Emit, Notice
from convo_cli.export.llama_cpp.ollama_templates import go_source, is_printable
from convo_cli.export.llama_cpp.role_template import RoleTemplate, find_role_template
from convo_cli.export.source import Source
from convo_cli.model.open import generation_defaults
from convo_cli.text.bounded.rendering import Rendered, render_all

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MODELFILE = "Modelfile"
_SIMPLE_NAME = re.compile(r"[\w.-]+\.gguf")


def write_modelfile(folder: Path, gguf_name: str, source: Source, emit: Emit) -> None:
    """Write the Modelfile of a GGUF file into its folder."""
    assert _SIMPLE_NAME.fullmatch(gguf_name), "convo chooses the name"
    encoder = source.generator.encoder
    roles = role_template_of(encoder.tokenizer, encoder.template.chat_template)
    if roles is None:
        emit(
            Notice(
                "export: the Modelfile has no TEMPLATE, because this chat template has no equal in "
                "Go's language; Ollama 0.30 and newer render the chat template of the GGUF file, "
                "older versions send texts as they are",
                is_warning=True,
            )
        )
    stops, left_out = stop_texts(encoder.template.stop_tokens)
    if left_out:
        emit(
            Notice(
                f"export: the Modelfile cannot state the stop token {left_out[0]!a}; the GGUF file "
                "has it"
            )
        )
    settings = generation_defaults(source.generator)
    template = go_source(roles) if roles else None
    lines = _lines(gguf_name, template, settings, encoder.max_length, stops)
    (folder / MODELFILE).write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def role_template_of(tokenizer: PreTrainedTokenizerBase, chat_template: str) -> RoleTemplate | None:
    """Return openings and endings of a chat template by role; None if it has another form."""

    def render(dialogues: Sequence[Sequence[Turn]], for_reply: bool) -> list[str | None]:
        results = render_all(tokenizer, chat_template, dialogues, for_reply=for_reply)
        return [one.text if isinstance(one, Rendered) else None for one in results]

    return find_role_template(chat_template, render)


def stop_texts(tokens: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the tokens that a Modelfile can hold as stop texts, and the others.

    Ollama compares them with the text of a reply, so they also end one that spells them.
    """
    held = [token for token in tokens if all(map(is_printable, token)) and token.strip()]
    return held, [token for token in tokens if token not in held]


def _lines(
    gguf_name: str,
    template: str | None,
    settings: GenerationSettings,
    max_length: int,
    stops: Sequence[str],
) -> Iterator[str]:
    yield "# ollama create NAME -f Modelfile, then: ollama run NAME"
    yield f"FROM ./{gguf_name}"
    if template is not None:
        yield f"TEMPLATE {_quoted(template)}"
    yield f"PARAMETER num_ctx {max_length}"
    # Without a limit, Ollama moves the window while it generates, also past the system text.
    yield f"PARAMETER num_predict {settings.max_new_tokens}"
    for name in ("temperature", "top_k", "top_p", "min_p"):
        yield f"PARAMETER {name} {getattr(settings, name)}"
    yield f"PARAMETER repeat_penalty {settings.repetition_penalty}"
    if settings.repetition_penalty != 1:
        yield "PARAMETER repeat_last_n -1"  # all tokens, as in transformers; Ollama's default is 64
    for stop in stops:
        yield f"PARAMETER stop {_quoted(stop)}"


def _quoted(value: str) -> str:
    """Return a value between three quotes, which end it only before a line break.

    Ollama knows no escapes there.
    """
    return f'"""{value}"""'
