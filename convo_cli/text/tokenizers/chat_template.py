"""Source of a tokenizer's own chat template, with today's date instead of calls for it."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

from convo_cli.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CLOCK = re.compile(r"""strftime_now\(\s*(?P<quote>["'])(?P<format>.{0,100}?)(?P=quote)\s*\)""")


def own_chat_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the Jinja of the tokenizer's default template, with today's date as text.

    So a run that is resumed tomorrow renders the same ids. Raises ModelError if there is no
    template, or if it reads the time in another form.
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
    if re.search(r"strftime_now\s*\(", dated):
        raise ModelError(
            "template native cannot be used: the chat template reads the time in a form that convo "
            "cannot replace",
            hint="set dialogue.template: turns or chatml",
        )
    return dated
