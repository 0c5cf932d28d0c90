"""Named formats of lines that are not dialogues as they stand: what each is, and its conversion.

`recognise` is for values that no shape reads, `misread` for values that one would read wrongly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from convo_cli.data.conversions.commands import by_import, jq_path
from convo_cli.data.conversions.fixed_keys import (
    ANSWER,
    BOT_FIRST,
    FIXED,
    NUMBERED_CONTEXTS,
    QUESTION,
    QUESTION_WITH_REFERENCE,
    RATED,
)
from convo_cli.data.conversions.line_format import Format
from convo_cli.data.conversions.marked_turns import (
    flagged_format,
    named_lines_format,
    paired_format,
    unnamed_format,
)
from convo_cli.data.conversions.parallel_lists import columns_format, questions_format
from convo_cli.data.conversions.preferences import preference_format, ranked_format
from convo_cli.data.conversions.rows import row_format
from convo_cli.data.conversions.tagged import Tags, find_tags, jq_turns
from convo_cli.data.dialogue import Role
from convo_cli.data.shapes.items.turn_keys import LISTS
from convo_cli.wording import quoted

_PAIRS = (
    ("human", "assistant"),
    ("user", "assistant"),
    ("input", "output"),
    ("prompt", "response"),
    ("prompt", "completion"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("question", "answer"),
    ("query", "response"),
    ("user", "bot"),
    ("user", "system"),
    ("q", "a"),
)


def recognise(value: Any) -> Format | None:
    """Return the format of a line that no shape reads; None if it is unknown."""
    if isinstance(value, str):
        return tagged(".", value)
    if not isinstance(value, dict):
        return None
    known = next(
        (format_ for keys, format_ in FIXED if all(_has(value, key) for key in keys)), None
    )
    return known or next((found for look in _LOOKS if (found := look(value)) is not None), None)


def misread(value: Mapping[str, Any]) -> Format | None:
    """Return the format of a line with the keys of a dialogue that is not one.

    It decides by keys and types alone.
    """
    if "question_id" in value and isinstance(turns := value.get("turns"), list):
        reference = value.get("reference")
        if turns and all(isinstance(turn, str) for turn in turns):
            is_answered = isinstance(reference, list) and len(reference) == len(turns)
            return QUESTION_WITH_REFERENCE if is_answered else QUESTION
    if isinstance(value.get("label"), bool) and "prompt" in value and "completion" in value:
        return RATED
    if "chosen" in value and "rejected" in value and isinstance(value["chosen"], dict):
        return preference_format(value)
    if "context/0" in value:
        return NUMBERED_CONTEXTS
    if "bot_id" in value and "user_id" in value and isinstance(turns := value.get("turns"), list):
        return BOT_FIRST if all(isinstance(turn, str) for turn in turns) else None
    listed = next(({key: value[key]} for key in LISTS if isinstance(value.get(key), list)), {})
    numbered = {key: turns for key, turns in listed.items() if _begins_with_a_number(turns)}
    return flagged_format(listed) or paired_format(numbered) or unnamed_format(listed)


def _begins_with_a_number(turns: list[Any]) -> bool:
    return bool(turns) and isinstance(turns[0], list) and isinstance(next(iter(turns[0]), ""), int)


def _mt_bench_answer(value: Mapping[str, Any]) -> Format | None:
    choices = value.get("choices")
    is_answer = "question_id" in value and isinstance(choices, list)
    return ANSWER if is_answer else None


def _tagged_text(value: Mapping[str, Any]) -> Format | None:
    """Recognise a dialogue in one text, under any key."""
    texts = sorted(
        ((key, text) for key, text in value.items() if isinstance(text, str)),
        key=lambda item: -len(item[1]),
    )
    return next((found for key, text in texts if (found := tagged(jq_path(key), text))), None)


def tagged(path: str, text: str) -> Format | None:
    """Recognise a dialogue in the text at a path of jq."""
    tags = find_tags(text)
    if tags is None:
        return None
    first = next(iter(tags.roles)).strip()
    what = f"a whole dialogue in one text, with the tag {quoted(first)}"
    return Format(what, f"{{messages: {jq_turns(path, tags)}}}", note="split the text at its tags")


def _glaive(value: Mapping[str, Any]) -> Format | None:
    """Recognise a line of Glaive's function calls: the results of functions are turns, too."""
    chat = value.get("chat")
    if not isinstance(chat, str) or "FUNCTION RESPONSE:" not in chat:
        return None
    roles: dict[str, Role] = {"\nUSER:": "user", "\nASSISTANT:": "assistant"}
    turns = jq_turns(
        ".chat", Tags({**roles, "\nFUNCTION RESPONSE:": "tool"}, ("<|endoftext|>",), False)
    )
    system = '(.system // "" | ltrimstr("SYSTEM: "))'
    what = "a dialogue with function calls in one text"
    return Format(what, f"{{system: {system}, messages: {turns}}}", note="cut the text at its tags")


def _replies_with_history(value: Mapping[str, Any]) -> Format | None:
    """Recognise a list of replies, each with all turns before it; the last holds all."""
    for key, items in value.items():
        last = items[-1] if isinstance(items, list) and items else None
        if isinstance(last, dict) and isinstance(last.get("history"), list) and "response" in last:
            program = f"{jq_path(key)}[-1] | {{context: .history, response}}"
            return Format(f"a list of replies with their history ({quoted(key)})", program)
    return None


def _pairs(value: Mapping[str, Any]) -> Format | None:
    """Recognise a list of objects that hold a question and an answer each."""
    for key, items in value.items():
        if not isinstance(items, list) or not items or not all(map(_is_object, items)):
            continue
        for question, answer in _PAIRS:
            if all(isinstance(item.get(question), str) and answer in item for item in items):
                turns = (
                    f'{jq_path(key)}[] | ({{role: "user", content: .{question}}}, '
                    f'{{role: "assistant", content: .{answer}}})'
                )
                system = f"system: {jq_path(key)}[0].system, " if "system" in items[0] else ""
                what = f'a list of pairs ("{question}" and "{answer}")'
                return Format(what, f"{{{system}messages: [{turns}]}}")
    return None


def _grouped_turns(value: Mapping[str, Any]) -> Format | None:
    """Recognise a ParlAI dialogue: a list of rounds, each a list of objects with an id."""
    for key, rounds in value.items():
        turns = rounds[0] if isinstance(rounds, list) and rounds else None
        first = turns[0] if isinstance(turns, list) and turns else None
        if isinstance(first, dict) and isinstance(first.get("text"), str) and "id" in first:
            path = jq_path(key)
            program = (
                f"{path}[0][0].id as $first | {{messages: [{path}[][] | {{role: "
                '(if .id == $first then "user" else "assistant" end), content: .text}]}'
            )
            return Format("a ParlAI dialogue", program, note="the first speaker becomes the user")
    return None


def _chat_message(value: Mapping[str, Any]) -> Format | None:
    """Recognise one message of a chat export: Slack, Discord, or a list made from another."""
    author = value.get("author")
    if isinstance(author, dict) and isinstance(value.get("content"), str):
        name = author.get("name") or author.get("username")
        return _chat("Discord", "author", name)
    if "ts" in value and isinstance(value.get("text"), str):
        return _chat("Slack", "ts", value.get("user"))
    if isinstance(value.get("sender"), str) and isinstance(value.get("message"), str):
        return _chat("chat", "sender", value["sender"])
    return None


def _chat(what: str, key: str, assistant: Any) -> Format:
    name = assistant if isinstance(assistant, str) and assistant else "NAME"
    export = f"a {what} export" if what != "chat" else "a chat"
    note = (
        f'messages become dialogues (by keys such as "{key}"); '
        "choose with --assistant whose messages the model learns to write"
    )
    return Format(f"one message of {export}", command=by_import(note, name))


def _has(value: Any, path: str) -> bool:
    for key in path.split("."):
        if not isinstance(value, dict) or key not in value:
            return False
        value = value[key]
    return True


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


_LOOKS: tuple[Callable[[Mapping[str, Any]], Format | None], ...] = (
    _mt_bench_answer,
    preference_format,
    ranked_format,
    _glaive,
    _tagged_text,
    columns_format,
    questions_format,
    _replies_with_history,
    flagged_format,
    paired_format,
    named_lines_format,
    row_format,
    _chat_message,
    _grouped_turns,
    _pairs,
    unnamed_format,
)
