"""Whole dialogues in one text: the tags that begin its turns, and a jq program that cuts there.

    <|user|> Hi <|assistant|> Hello!             <|im_start|>user Hi<|im_end|> …
    ### Human: Hi ### Assistant: Hello!          [INST] Hi [/INST] Hello!
    Human: Hi (newline) Assistant: Hello!        USER: Hi ASSISTANT: Hello!</s>

The program holds the tags as literal texts. It replaces each tag by U+0001, a role and U+0002; no
text of a dialogue may contain these characters.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from convo_cli.data.conversions.commands import jq_string
from convo_cli.data.dialogue import Role

_TURN, _TEXT = "\1", "\2"
_MAX_SEARCHED = 2**16
"""Characters of a text in which tags are searched."""

_NAMES: dict[Role, str] = {
    "user": "user|human|customer|prompter|instruction|question|q|me|client|caller|person 1|"
    "person a|speaker 1|speaker a",
    "assistant": "assistant|gpt|bot|model|chatbot|response|answer|a|agent|ai|chatgpt|claude|moss|"
    "support|operator|person 2|person b|speaker 2|speaker b",
    "system": "system|developer",
}
_ROLES = {name: role for role, names in _NAMES.items() for name in names.split("|")}
_WORD = "[A-Za-z]{1,11}"
_NAME = f"{_WORD}(?: [A-Za-z0-9])?"
_LLAMA_FORM = re.compile(r"\[/?INST\]")
# A text is cut at tags of one form, the group of the pattern, although it may mention another one.
_FORMS = (
    re.compile(
        rf"<\|im_start\|>(?P<chatml>{_WORD})\n?|<start_of_turn>(?P<gemma>{_WORD})\n?"
        rf"|<\|start_header_id\|>(?P<llama>{_WORD})<\|end_header_id\|>"
        rf"|<\|start_of_role\|>(?P<granite>{_WORD})<\|end_of_role\|>"
        rf"|<[|\uff5c](?P<bars>{_NAME})[|\uff5c]>:?|\[\|(?P<brackets>{_NAME})\|\]:?"
        rf"|<(?P<angles>{_NAME})>:?|#{{2,4}} ?(?P<heading>{_NAME}):"
        rf"|\n\*\*(?P<bold>{_NAME}):\*\*|\n\[(?P<square>{_NAME})\]:?|\[(?P<closed>{_NAME})\]: "
    ),
    re.compile(rf"\n(?P<line>{_NAME}) ?:"),
    re.compile(rf"\b(?P<inline>[A-Z]{_WORD}(?: [A-Za-z0-9])?):"),
)
_LLAMA_TAGS: dict[str, Role] = {
    "[INST]": "user",
    "[/INST]": "assistant",
    "<<SYS>>": "system",
    "<</SYS>>": "user",
}
# What stands between the turns; the input of Alpaca's form belongs to its instruction.
_REMOVED = re.compile(
    r"<\|(?:im_end|end|endoftext|eot_id|eom_id|begin_of_text|end_of_text|end_of_turn|eot)\|>"
    r"|</?s>|<(?:bos|eos|end_of_turn|eo[ham])>|<\uff5c(?:begin|end)\u2581of\u2581sentence\uff5c>"
    r"|</(?:user|human|assistant|bot|system)>|#{2,4} ?(?:Input|Context):\n?"
)


class Tags(NamedTuple):
    """The tags of a text."""

    roles: dict[str, Role]
    """The role of each tag. A tag that begins with a newline stands at the start of a line."""
    removed: tuple[str, ...]
    """Texts between the turns that belong to none."""
    has_system: bool
    """True if a text before the first tag is the system turn."""


def find_tags(text: str) -> Tags | None:
    """Return the tags of a text that is a whole dialogue; None for any other text.

    It has tags of one form for a user and for an assistant turn.
    """
    searched = "\n" + text[:_MAX_SEARCHED]
    removed = tuple(dict.fromkeys(match.group() for match in _REMOVED.finditer(searched)))
    if set(_LLAMA_FORM.findall(searched)) == {"[INST]", "[/INST]"}:
        return Tags(_LLAMA_TAGS, removed, has_system=True)
    for pattern in _FORMS:
        forms: dict[str | None, dict[str, str]] = {}
        for match in pattern.finditer(searched):
            name = match[match.lastgroup or 0]
            if name.casefold() in _ROLES:
                forms.setdefault(match.lastgroup, {})[match.group()] = name
        for names in forms.values():
            roles = {tag: _ROLES[name.casefold()] for tag, name in names.items()}
            if {"user", "assistant"} <= set(roles.values()):
                for tag, name in names.items():
                    roles.setdefault(tag.replace(name, _cased_like("system", name)), "system")
                is_alpaca = "instruction" in map(str.casefold, names.values())
                return Tags(roles, removed, has_system=not is_alpaca)
    return None


def jq_turns(text: str, tags: Tags) -> str:
    """Return jq's program for the turns in the text that the program ``text`` returns."""
    at_line_start = any(tag.startswith("\n") for tag in tags.roles)
    steps = [f'"\\n" + {text}' if at_line_start else text]
    steps += [f"{_split(between)} | join({jq_string('')})" for between in tags.removed]
    for tag in sorted(tags.roles, key=len, reverse=True):
        steps.append(f"{_split(tag)} | join({jq_string(f'{_TURN}{tags.roles[tag]}{_TEXT}')})")
    if tags.has_system:
        steps.append(f"{jq_string(f'{_TURN}system{_TEXT}')} + .")
    steps.append(f"{_split(_TURN)}[1:][] | {_split(_TEXT)}")
    steps.append('{role: .[0], content: .[1]} | select(.content | test("[^\\\\s]"))')
    return f"[{' | '.join(steps)}]"


def _split(text: str) -> str:
    return f"split({jq_string(text)})"


def _cased_like(name: str, other: str) -> str:
    if other.isupper():
        return name.upper()
    return name.capitalize() if other[:1].isupper() else name
