"""Source of a tokenizer's own chat template, with today's date instead of calls for it."""

from __future__ import annotations

import json
import re
from datetime import datetime
from string import ascii_letters
from typing import TYPE_CHECKING, Any

from convo_cli.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CLOCK = re.compile(
    r"""strftime_now\(\s*(?P<quote>["'])(?P<format>[^"'\\]{0,100})(?P=quote)\s*\)"""
)
_USED_CLOCK = re.compile(r"\bstrftime_now\b(?!\s{0,99}is\b)")
_MACRO = "{%- macro strftime_now(format) %}"


def own_chat_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the Jinja of the tokenizer's default template, with today's date as text.

    So a run that is resumed tomorrow renders the same ids. A call whose format is a literal becomes
    text; for other uses, the template gets a function of its own that formats today's date. Raises
    ModelError if there is no template.
    """
    templates: Any = tokenizer.chat_template
    template = templates.get("default") if isinstance(templates, dict) else templates
    if not isinstance(template, str):
        raise ModelError(
            "dialogue.template is native, but this tokenizer has no chat template",
            hint="set dialogue.template: turns",
        )
    now = datetime.now()
    dated = _CLOCK.sub(lambda call: json.dumps(now.strftime(call["format"])), template)
    return _clock(now) + dated if _USED_CLOCK.search(dated) and _MACRO not in dated else dated


def _clock(now: datetime) -> str:
    """Return a macro that replaces the directives of a format as `strftime_now` does today."""
    values = {f"%{letter}": now.strftime(f"%{letter}") for letter in ascii_letters}
    values |= {f"%-{letter}": now.strftime(f"%{letter}").lstrip("0") for letter in "dmHIMSjyUW"}
    filters = "".join(
        f" | replace({json.dumps(directive)}, {json.dumps(value)})"
        for directive, value in sorted(values.items())
        if value != directive
    )
    return f"{_MACRO}{{{{- format{filters} }}}}{{%- endmacro %}}\n"
