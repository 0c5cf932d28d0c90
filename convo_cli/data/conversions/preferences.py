"""Preference pairs: a prompt with a chosen and a rejected answer. The chosen one is trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convo_cli.data.conversions.commands import jq_path
from convo_cli.data.conversions.line_format import Format
from convo_cli.data.conversions.tagged import find_tags, jq_turns
from convo_cli.wording import quoted

_PAIRS = (
    ("chosen", "rejected"),
    ("chosen_response", "rejected_response"),
    ("response_chosen", "response_rejected"),
    ("chosen_answer", "rejected_answer"),
    ("preferred", "dispreferred"),
    ("response_j", "response_k"),
    ("better_response", "worse_response"),
    ("win", "lose"),
    ("good", "bad"),
)
_PROMPTS = (
    "conversations",
    "messages",
    "conversation",
    "history",
    "prompt",
    "question",
    "instruction",
    "query",
    "input",
    "context",
)
_FIRST_ROLES = ("user", "system", "human", "developer", "prompter")
_NOTE = "train on the chosen answers"
_NOTE_BEST = "train on the best answer"


def preference_format(value: Mapping[str, Any]) -> Format | None:
    """Return the format of a line with a chosen and a rejected answer."""
    pair = next((pair for pair in _PAIRS if pair[0] in value and pair[1] in value), None)
    if pair is None:
        return None
    answer = value[pair[0]]
    key = next((key for key in _PROMPTS if isinstance(value.get(key), (str, list))), None)
    prompt = None if key is None else value[key]
    chosen, before = jq_path(pair[0]), "" if key is None else jq_path(key)
    what = f'a preference pair ("{pair[0]}" and "{pair[1]}")'
    if isinstance(answer, dict):
        answer, chosen = [answer], f"[{chosen}]"
    if isinstance(answer, list):
        if _is_whole(answer) or prompt is None:
            turns = chosen
        elif isinstance(prompt, list):
            turns = f"({before} + {chosen})"
        else:
            turns = f"([{_turn('user', before)}] + {chosen})"
        return Format(what, _line(value, f"messages: {turns}"), note=_NOTE)
    if not isinstance(answer, str):
        return None
    if isinstance(prompt, list):
        turns = f"({before} + [{_turn('assistant', chosen)}])"
        return Format(what, _line(value, f"messages: {turns}"), note=_NOTE)
    if (tags := find_tags(answer)) is not None:
        return Format(what, _line(value, f"messages: {jq_turns(chosen, tags)}"), note=_NOTE)
    if isinstance(prompt, str) and (tags := find_tags(prompt)) is not None:
        turns = jq_turns(f"({before} + {chosen})", tags)
        return Format(what, _line(value, f"messages: {turns}"), note=_NOTE)
    if prompt is None:
        return None
    return Format(what, _line(value, f"prompt: {before}, completion: {chosen}"), note=_NOTE)


def _is_whole(turns: list[Any]) -> bool:
    """Return whether a list of turns begins with the prompt."""
    first = turns[0] if turns else None
    if not isinstance(first, dict):
        return False
    speaker = first.get("role", first.get("from", first.get("speaker")))
    return isinstance(speaker, str) and speaker.casefold() in _FIRST_ROLES


def _turn(role: str, text: str) -> str:
    return f'{{role: "{role}", content: {text}}}'


def _line(value: Mapping[str, Any], parts: str) -> str:
    return f"{{{'system: .system, ' if isinstance(value.get('system'), str) else ''}{parts}}}"


_SCORES = {
    "rank": "min_by",
    **dict.fromkeys(("overall_score", "score", "pm_score", "rating"), "max_by"),
}
_ANSWERS = ("answer", "response", "text", "content", "output")


def ranked_format(value: Mapping[str, Any]) -> Format | None:
    """Return the format of a line with a prompt and a list of answers, each with its score."""
    prompt = next((key for key in _PROMPTS if isinstance(value.get(key), str)), None)
    for key, answers in value.items():
        first = answers[0] if isinstance(answers, list) and answers else None
        if prompt is None or not isinstance(first, dict):
            continue
        score = next((name for name in _SCORES if isinstance(first.get(name), (int, float))), None)
        text = next((name for name in _ANSWERS if isinstance(first.get(name), str)), None)
        if score is None or text is None:
            continue
        before = jq_path(prompt)
        best = f"({jq_path(key)} | {_SCORES[score]}(.{score}) | .{text})"
        what = f"a list of answers with scores ({quoted(key)}, {quoted(score)})"
        if (tags := find_tags(value[prompt])) is not None:
            turns = jq_turns(f"({before} + {best})", tags)
            return Format(what, _line(value, f"messages: {turns}"), note=_NOTE_BEST)
        return Format(what, _line(value, f"prompt: {before}, completion: {best}"), note=_NOTE_BEST)
    return None
