"""Dialogues in one text, in which a tag before each turn names the speaker."""

from __future__ import annotations

import re

_NAMES = {
    "human": "user",
    "user": "user",
    "prompter": "user",
    "instruction": "user",
    "assistant": "assistant",
    "response": "assistant",
    "system": "system",
}
_CHATML = re.compile(r"<\|im_start\|>(system|user|assistant)\n")
_BARS = re.compile(r"<\|(system|user|prompter|assistant)\|>")
_HASHES = re.compile(r"### ?(System|Human|User|Assistant|Instruction|Response):")
_LINES = re.compile(r"(?:\A|\n\n) ?(Human|Assistant):")
_STYLES = (_CHATML, _BARS, _HASHES, _LINES)
_END_TOKENS = ("<|im_end|>", "<|end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "</s>")


def tagged_turns(text: str) -> list[dict[str, str]] | None:
    """Return the turns of a text with tags; what is before the first tag is a system text.

    None if the text has no tags of both speakers.
    """
    for style in _STYLES:
        before, *parts = style.split(text)
        roles = [_NAMES[name.casefold()] for name in parts[::2]]
        if "user" not in roles or "assistant" not in roles:
            continue
        turns = [
            {"role": role, "content": content}
            for role, part in zip(roles, parts[1::2], strict=True)
            if (content := _without_end(part))  # the last tag of a prompt has no text behind it
        ]
        return [{"role": "system", "content": before.strip()}, *turns] if before.strip() else turns
    return None


def _without_end(text: str) -> str:
    text = text.strip()
    for token in _END_TOKENS:
        text = text.removesuffix(token).rstrip()
    return text
