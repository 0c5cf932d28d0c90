"""Lists side by side: {"speaker": [0, 1], "utterance": ["Hi", "Hello!"]}, questions and answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convo_cli.data.conversions.commands import jq_path
from convo_cli.data.conversions.line_format import Format
from convo_cli.data.shapes.items.turn_keys import AUTHOR_KEYS, SPEAKER_KEYS, TEXT_KEYS
from convo_cli.wording import quoted

_ANSWERS = ("orig_answers.texts", "answers.input_text", "answers")
_PASSAGES = ("story", "context", "passage")
_KNOWN = '{"user":1,"human":1,"assistant":1,"gpt":1,"bot":1,"model":1,"system":1}'


def columns_format(value: Mapping[str, Any]) -> Format | None:
    """Return the format of a line with a list of speakers beside a list of their texts."""
    for key, columns in (("", value), *value.items()):
        if not isinstance(columns, dict):
            continue
        speaker = next((name for name in (*SPEAKER_KEYS, *AUTHOR_KEYS) if name in columns), None)
        text = next((name for name in TEXT_KEYS if name in columns), None)
        if speaker is None or text is None or speaker == text:
            continue
        names, texts = columns[speaker], columns[text]
        if not (_is_list_of(names, (str, int)) and _is_list_of(texts, str)):
            continue
        if len(names) != len(texts):
            continue
        path = jq_path(key) if key else "."
        program = (
            f"{path} | [{jq_path(speaker)}, {jq_path(text)}] | transpose | .[0][0] as $first | "
            "{messages: [.[] | {role: (if (.[0] | tostring | ascii_downcase) as $name | "
            f"{_KNOWN}[$name] then .[0] elif .[0] == $first "
            'then "user" else "assistant" end), content: .[1]}]}'
        )
        what = f"lists side by side ({quoted(speaker)} and {quoted(text)})"
        note = "join the lists; the first speaker becomes the user"
        return Format(what, program, note=note)
    return None


def questions_format(value: Mapping[str, Any]) -> Format | None:
    """Return the format of a line with a list of questions and a list of their answers."""
    questions: Any = value.get("questions")
    if not _is_list_of(questions, (str, dict)):
        return None
    asked = "" if isinstance(questions[0], str) else "[].input_text"
    for path in _ANSWERS:
        answers: Any = value
        for key in path.split("."):
            answers = answers.get(key) if isinstance(answers, dict) else None
        if not _is_list_of(answers, (str, dict)) or len(answers) != len(questions):
            continue
        answered = "" if isinstance(answers[0], str) else "[].input_text"
        lists = ", ".join(
            f"[.{name}[].input_text]" if inner else f".{name}"
            for name, inner in (("questions", asked), (path, answered))
        )
        passage = next((key for key in _PASSAGES if isinstance(value.get(key), str)), None)
        system = f"system: .{passage}, " if passage else ""
        program = f"{{{system}messages: [[{lists}] | transpose[] | {_PAIR}]}}"
        note = (
            "join the lists; the passage becomes the system text" if passage else "join the lists"
        )
        return Format("a list of questions and a list of answers", program, note=note)
    return None


_PAIR = '({role: "user", content: .[0]}, {role: "assistant", content: .[1]})'


def _is_list_of(value: Any, kinds: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(i, kinds) for i in value)
