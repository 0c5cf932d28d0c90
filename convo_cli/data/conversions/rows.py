"""Lines that hold one message each: the dialogue of a message, its speaker and its text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convo_cli.data.conversions.commands import jq_path
from convo_cli.data.conversions.line_format import Format
from convo_cli.wording import quoted

# Names of keys in lower case, letters only.
_DIALOGUE_NAMES = """
    conversationid convid conversationhash convhash dialogueid dialogid dialid sessionid threadid
    chatid episodeid conversation dialogue dialog session thread chat
"""
_TEXT_NAMES = "utterance text content message body msg mes value"
_SPEAKER_NAMES = """
    speaker role from author sender speakerid speakeridx speakername authorid senderid sendername
    user userid username participant participantid agent name
"""
_ORDER_NAMES = """
    utteranceidx utteranceid utteranceindex turn turnid turnidx turnindex turnnumber turnno
    messageindex index idx position seq sequence order timestamp ts datetime createdat date time
"""
_REPLY_NAMES = "replyto replytoid inreplyto parentid"
_ROLES = frozenset(
    ("user", "human", "customer", "prompter", "assistant", "gpt", "bot", "model", "chatbot")
)
"""Speakers that convo knows as they are."""


def row_format(value: Mapping[str, Any]) -> Format | None:
    """Return the format of a line that is one message of a dialogue."""
    text = _find(value, _TEXT_NAMES, str)
    dialogue = _find(value, _DIALOGUE_NAMES, (str, int))
    if text is None or dialogue is None or dialogue == text:
        return None
    others = {key: item for key, item in value.items() if key not in (text, dialogue)}
    speaker = _find(others, _SPEAKER_NAMES, (str, int))
    reply = _find(others, _REPLY_NAMES, (str, int, type(None)))
    order = _find(others, _ORDER_NAMES, (str, int, float))
    what = f"one message of a dialogue ({_named(dialogue, speaker, reply or order, text)})"
    content = jq_path(text)
    if dialogue == "conv_id" and text == "utterance":
        content = f'({content} | gsub("_comma_"; ","))'  # EmpatheticDialogues writes commas so
    if speaker is None:
        turns = f"{{turns: [.[] | {content}]}}"
    elif str(value[speaker]).casefold() in _ROLES:
        turns = f"{{messages: [.[] | {{role: {jq_path(speaker)}, content: {content}}}]}}"
    else:
        path = jq_path(speaker)
        turns = (
            f".[0]{path.replace('.[', '[', 1)} as $first | "
            f"{{messages: [.[] | {{role: (if {path} == $first "
            f'then "user" else "assistant" end), content: {content}}}]}}'
        )
    if reply is not None and isinstance(value.get("id"), (str, int)):
        parent = f"$messages[{jq_path(reply)} | tostring] | values"
        chains = (
            f"INDEX(.id) as $messages | INDEX({jq_path(reply)}) as $answered | .[] | "
            f"select($answered[.id | tostring] == null) | [recurse({parent})] | reverse"
        )
    else:
        chains = f"group_by({jq_path(dialogue)})[]"
        if order is not None:
            chains += f" | sort_by({jq_path(order)} | tonumber? // .)"
    program = f"{chains} | select(length > 1) | {turns}"
    note = f"join the messages by {quoted(dialogue)}; the first speaker becomes the user"
    return Format(what, program, needs_all=True, note=note)


def _find(value: Mapping[str, Any], names: str, kinds: Any) -> str | None:
    """Return the key with the first of the names and a value of one of the kinds."""
    by_name = {_plain(key): key for key, item in value.items() if isinstance(item, kinds)}
    return next((by_name[name] for name in names.split() if name in by_name), None)


def _plain(key: str) -> str:
    return "".join(filter(str.isalpha, key.casefold()))


def _named(*keys: str | None) -> str:
    return ", ".join(quoted(key) for key in keys if key is not None)
