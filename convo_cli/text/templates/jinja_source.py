"""Source of chat templates: literals, values for a template's own variables, generation prompts.

transformers removes the line break after a block, so every added line is one block.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence


def text_literal(text: str) -> str:
    """Return a text as a Jinja string literal, so that no foreign token is read as Jinja.

    Jinja decodes Python's escapes, which include those of JSON. Letters beyond ASCII are not
    escaped.
    """
    escaped = json.dumps(text, ensure_ascii=False)[1:-1].replace("'", "\\'")
    return f"'{escaped}'"


def value_literal(value: object) -> str:
    """Return a JSON value as a Jinja literal."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, Mapping):
        items = (f"{text_literal(str(key))}: {value_literal(item)}" for key, item in value.items())
        return "{" + ", ".join(items) + " }"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(value_literal, value)) + "]"
    return text_literal(str(value))


def with_options(source: str, options: Mapping[str, object]) -> str:
    """Return the template with these values as the defaults of its own variables.

    A caller that passes another value gets that value. A source that begins with them is returned
    unchanged.
    """
    defaults = "".join(
        f"{{%- if {name} is not defined %}}"
        f"{{%- set {name} = {value_literal(options[name])} %}}{{%- endif %}}"
        for name in sorted(options)
    )
    added = f"{defaults}\n" if defaults else ""
    return source if source.startswith(added) else added + source


def with_generation_prompt(source: str, prompt: str) -> str:
    """Return the template with another generation prompt."""
    before = "{%- set is_asked = add_generation_prompt %}{%- set add_generation_prompt = false %}\n"
    after = f"{{%+ if is_asked %}}{{{{ {text_literal(prompt)} }}}}{{% endif %}}"
    return before + source.removesuffix("\n") + after
