"""Rendering of dialogues with chat templates, convo's own and foreign ones, under limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from convo_cli.data.dialogue import Turn, as_messages, tool_definitions
from convo_cli.errors import DataError, ModelError
from convo_cli.text.bounded import client
from convo_cli.text.bounded.process import RENDER, RENDER_LIMITS, VARIABLES
from convo_cli.text.tokenizers.panics import no_panics

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_TEMPLATE_CHARACTERS = 2**18
"""Longest template; the longest known ones, with tools and reasoning, have a tenth of it."""


class Rendered(NamedTuple):
    """A dialogue as text, and the spans of characters between generation marks."""

    text: str
    spans: list[tuple[int, int]]


def render_all(
    tokenizer: PreTrainedTokenizerBase,
    chat_template: str,
    dialogues: Sequence[Sequence[Turn]],
    *,
    for_reply: bool = False,
    has_marks: bool = False,
) -> list[Rendered | DataError]:
    """Render each dialogue as transformers does; the result for a refused one is a DataError.

    Raises ModelError for a template that is too long, or takes too much time or memory.
    """
    if len(chat_template) > MAX_TEMPLATE_CHARACTERS:
        raise _unusable(tokenizer, f"is {len(chat_template):,} characters long")
    request = {
        "dialogues": [as_messages(turns) for turns in dialogues],
        "tools": [tool_definitions(turns) for turns in dialogues],
        "tokens": tokenizer.special_tokens_map,
        "options": {
            "chat_template": chat_template,
            "add_generation_prompt": for_reply,
            "return_assistant_tokens_mask": has_marks,
        },
    }
    try:
        answer = client.ask(RENDER, msgspec.json.encode(request, enc_hook=str))
    except UnicodeEncodeError:
        raise _unusable(tokenizer, "or a text contains half of a surrogate pair") from None
    except client.EndedError as end:
        raise _unusable(tokenizer, end.reason(RENDER_LIMITS, " for one dialogue")) from None
    return [
        refusal(f"refuses the dialogue: {one}") if isinstance(one, str) else Rendered(*one)
        for one in msgspec.json.decode(answer, type=list[Any])
    ]


def render_ids(
    tokenizer: PreTrainedTokenizerBase,
    chat_template: str,
    turns: Sequence[Turn],
    *,
    for_reply: bool = False,
) -> list[int]:
    """Return the ids of `apply_chat_template`; DataError if the template refuses the dialogue."""
    (rendered,) = render_all(tokenizer, chat_template, [turns], for_reply=for_reply)
    if isinstance(rendered, DataError):
        raise rendered
    with no_panics(tokenizer):
        ids: list[int] = tokenizer(rendered.text, add_special_tokens=False)["input_ids"]
    return ids


def template_variables(tokenizer: PreTrainedTokenizerBase, chat_template: str) -> set[str]:
    """Return the variables that a chat template reads and does not set; none of a faulty one."""
    if len(chat_template) > MAX_TEMPLATE_CHARACTERS:
        raise _unusable(tokenizer, f"is {len(chat_template):,} characters long")
    try:
        answer = client.ask(VARIABLES, msgspec.json.encode(chat_template))
    except UnicodeEncodeError:
        return set()
    except client.EndedError as end:
        raise _unusable(tokenizer, end.reason(RENDER_LIMITS)) from None
    return set(msgspec.json.decode(answer, type=list[str]))


def refusal(reason: str) -> DataError:
    """Return an error about a dialogue that the chat template does not render as needed."""
    return DataError(
        f"the chat template {reason}",
        hint="set dialogue.template: turns or chatml, or change the dialogue",
    )


def _unusable(tokenizer: PreTrainedTokenizerBase, reason: str) -> ModelError:
    return ModelError(
        f"{tokenizer.name_or_path or 'the tokenizer'}: its chat template {reason}",
        hint="do not trust the files of this model; to train it anyway, set dialogue.template: "
        "turns or chatml",
    )
