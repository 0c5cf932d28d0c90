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
_NAME = rf"(?P<name>(?i:{'|'.join(sorted(_ROLES, key=len, reverse=True))}))"
_LLAMA_FORM = re.compile(r"(?P<name>\[/?INST\])")
# Each form is searched alone, so that a text that mentions another one is cut at its own tags.
_FORMS = (
    re.compile(rf"<\|im_start\|>{_NAME}\n?"),
    re.compile(rf"<\|start_header_id\|>{_NAME}<\|end_header_id\|>"),
    re.compile(rf"<\|start_of_role\|>{_NAME}<\|end_of_role\|>"),
    re.compile(rf"<start_of_turn>{_NAME}\n?"),
    re.compile(rf"<[|\uff5c]{_NAME}[|\uff5c]>:?"),
    re.compile(rf"\[\|{_NAME}\|\]:?"),
    re.compile(rf"<{_NAME}>:?"),
    re.compile(rf"#{{2,4}} ?{_NAME}:"),
    re.compile(rf"\n\*\*{_NAME}:\*\*"),
    re.compile(rf"\n\[{_NAME}\]:?"),
    re.compile(rf"\n{_NAME} ?:"),
    re.compile(rf"\b(?=[A-Z]){_NAME}:"),
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
    r"|</?s>|<(?:bos|eos|end_of_turn)>|<\uff5c(?:begin|end)\u2581of\u2581sentence\uff5c>"
    rf"|</{_NAME}>|#{{2,4}} ?(?:Input|Context):\n?"
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
    for form in _FORMS:
        names = {match.group(): match["name"] for match in form.finditer(searched)}
        roles = {tag: _ROLES[name.casefold()] for tag, name in names.items()}
        if {"user", "assistant"} <= set(roles.values()):
            for tag, name in names.items():
                roles.setdefault(tag.replace(name, _cased_like("system", name)), "system")
            is_alpaca = any(name.casefold() == "instruction" for name in names.values())
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
