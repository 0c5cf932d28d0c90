"""Choice of a native template's options, proven by rendering.

A reply can be trained on if it begins where its generation prompt ends. Many templates of models
that reason need an option for that, or write an empty block of reasoning that their generation
prompt lacks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from convo_cli.data.dialogue import Turn
from convo_cli.errors import DataError, ModelError
from convo_cli.text.bounded.rendering import template_variables
from convo_cli.text.templates.jinja_source import with_generation_prompt, with_options
from convo_cli.text.templates.native_template import NativeTemplate
from convo_cli.text.templates.pieces import Agreement, MovedReplyError
from convo_cli.text.tokenizers.chat_template import own_chat_template
from convo_cli.wording import quoted

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_SWITCHES = ("enable_thinking", "thinking")
"""Variables that switch the reasoning of known templates on and off."""
_GIVEN = frozenset(
    {"messages", "tools", "documents", "add_generation_prompt", "continue_final_message"}
)
"""Variables that are no options, besides the special tokens."""
_ONE_BY_ONE = (
    "each reply becomes an example of its own, with the turns before it as context, because the "
    "chat template renders a reply differently once the dialogue goes on"
)
_ASKED, _ANSWERED = Turn("user", "a"), Turn("assistant", "b")
_REASONED = Turn("assistant", "<think>\nc\n</think>\n\nb")


@dataclass(frozen=True)
class Choice:
    """A template that replies can be trained with, and what to say about it."""

    template: NativeTemplate
    notices: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def choose_native(
    tokenizer: PreTrainedTokenizerBase, options: Mapping[str, object], *, keeps_reasoning: bool
) -> Choice:
    """Return the template with the options, and others if replies need them.

    ModelError, with the option that would help, if its replies cannot be trained on.
    """
    source = own_chat_template(tokenizer)
    agreement: Agreement = "prefix" if keeps_reasoning else "exact"
    variables = template_variables(tokenizer, source)
    fault: ModelError | None = None
    for more in _candidates(options, variables, keeps_reasoning=keeps_reasoning):
        chosen = {**options, **more}
        try:
            template = NativeTemplate(tokenizer, with_options(source, chosen), chosen, agreement)
            moves = _prove(template, keeps_reasoning=keeps_reasoning)
        except ModelError as error:
            fault = fault or error
            continue
        if fault is not None and not options.keys().isdisjoint(more):
            raise ModelError(fault.message, hint=f"set {_as_yaml({**options, **more})}")
        notices = (*_because(more, fault), *moves)
        return Choice(template, notices, tuple(_unread(options, variables)))
    assert fault is not None, "there is at least one candidate"
    can_change = not keeps_reasoning and options.keys().isdisjoint(_SWITCHES)
    if can_change and (found := _with_own_prompt(tokenizer, source, options)):
        return replace(found, warnings=tuple(_unread(options, variables)))
    raise fault


def _candidates(
    options: Mapping[str, object], variables: set[str], *, keeps_reasoning: bool
) -> Iterator[dict[str, object]]:
    """Yield options to add: none, then each known switch, also in place of the given ones."""
    yield {}
    for name in _SWITCHES:
        if name in variables and options.get(name) is not keeps_reasoning:
            yield {name: keeps_reasoning}


def _prove(template: NativeTemplate, *, keeps_reasoning: bool) -> tuple[str, ...]:
    """Render replies as they are trained on; return a notice if that takes one example a reply."""
    try:
        template.render([_ASKED, _ANSWERED])
        if keeps_reasoning:
            template.render([_ASKED, _REASONED])
        try:
            template.render([_ASKED, _ANSWERED] * 2)
        except MovedReplyError:
            earlier = [_ASKED, Turn("assistant", "b", is_trained=False)]
            template.render([*earlier, _ASKED, _ANSWERED])
            return (_ONE_BY_ONE,)
    except DataError as error:
        raise ModelError(
            f"template native cannot be used: {error}",
            hint="train the model with dialogue.template: turns, or chatml",
        ) from error
    return ()


def _with_own_prompt(
    tokenizer: PreTrainedTokenizerBase, source: str, options: Mapping[str, object]
) -> Choice | None:
    """Return the template with the text that it writes before a reply as its generation prompt."""
    written = with_options(source, options)
    try:
        found = NativeTemplate(tokenizer, written, options, "none").text_before_reply()
        template = NativeTemplate(
            tokenizer, with_generation_prompt(written, found), options, "exact"
        )
        moves = _prove(template, keeps_reasoning=False)
    except (DataError, ModelError):
        return None
    notice = (
        f"the generation prompt becomes {quoted(found, 100)}, which the chat template writes "
        "before every reply in the data"
    )
    return Choice(template, (notice, *moves))


def _because(more: Mapping[str, object], fault: ModelError | None) -> Iterator[str]:
    if more and fault:
        reason = fault.message.removeprefix("template native cannot be used: ")
        yield f"{_as_yaml(more)}, because without it {reason}"


def _unread(options: Mapping[str, object], variables: set[str]) -> Iterator[str]:
    if unread := sorted(set(options) - variables):
        read = sorted(name for name in variables - _GIVEN if not name.endswith("_token"))
        yield (
            f"the chat template reads no variable {' or '.join(unread)} "
            f"(dialogue.template_options); it reads {', '.join(read) or 'no options'}"
        )


def _as_yaml(options: Mapping[str, object]) -> str:
    stated = ", ".join(f"{name}: {json.dumps(value)}" for name, value in options.items())
    return f"dialogue.template_options: {{{stated}}}"
