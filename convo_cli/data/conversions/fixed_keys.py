"""Formats that always have the same keys, with the command that converts each."""

from __future__ import annotations

from typing import NamedTuple

from convo_cli.data.conversions.commands import by_import
from convo_cli.data.conversions.line_format import Format

_TURN = "{role: .[0], content: .[1]}"
_TAVERN = Format(
    "one message of a SillyTavern chat",
    "{messages: [.[] | select(.mes) | "
    '{role: (if .is_user then "user" else "assistant" end), content: .mes}]}',
    needs_all=True,
    note="all messages become one dialogue",
)


class FixedKeys(NamedTuple):
    """A format by its keys, which may be paths: "state.messages"."""

    keys: tuple[str, ...]
    format: Format


FIXED = (
    FixedKeys(
        ("message_tree_id", "prompt.text"),
        Format(
            "a tree of an OASST dump",
            command=by_import('the best path of "prompt" and its "replies" becomes a dialogue'),
        ),
    ),
    FixedKeys(
        ("message_id", "parent_id", "text"),
        Format(
            "one message of an OASST dump",
            command=by_import('messages are joined by "message_id" and "parent_id"'),
        ),
    ),
    FixedKeys(
        ("personality", "utterances"),
        Format(
            "a PersonaChat dialogue with candidates",
            '{system: (.personality | join("\\n")), '
            "turns: (.utterances[-1] | .history + .candidates[-1:])}",
            note='the last of "utterances" holds the whole dialogue, the last candidate its reply',
        ),
    ),
    FixedKeys(
        ("conversation_a", "conversation_b"),
        Format(
            "a comparison of two conversations",
            '{messages: (if .winner == "model_b" then .conversation_b else .conversation_a end)}',
            note='train on the winner, or on "conversation_a" if there is none',
        ),
    ),
    FixedKeys(
        ("history", "human_ref_A", "human_ref_B"),
        Format(
            "a comparison of two answers",
            "{prompt: .history, "
            "completion: (if .labels == 1 then .human_ref_A else .human_ref_B end)}",
            note="train on the better answer",
        ),
    ),
    FixedKeys(
        ("response_0", "response_1", "better_response_id"),
        Format(
            "a comparison of two answers",
            '{prompt, completion: .["response_\\(.better_response_id)"]}',
            note="train on the better answer",
        ),
    ),
    FixedKeys(
        ("state.messages", "state.roles"),
        Format(
            "a record of a FastChat log",
            f"{{system: .state.system_message, messages: [.state.messages[] | {_TURN}]}}",
        ),
    ),
    FixedKeys(
        ("mapping", "current_node"),
        Format(
            "a conversation of a ChatGPT export",
            ".mapping as $nodes | {messages: [[.current_node | recurse($nodes[.].parent | values)] "
            "| reverse[] | $nodes[.].message | values | {role: .author.role, content: "
            '([.content.parts[]? | strings] | join("\\n"))} | select((.content | test("[^\\\\s]")) '
            'and (.role == "user" or .role == "assistant"))]} | select(.messages | length > 1)',
        ),
    ),
    FixedKeys(
        ("chat_messages",),
        Format(
            "a conversation of a Claude export",
            "{messages: [.chat_messages[] | {role: .sender, content: .text} | "
            'select(.content | test("[^\\\\s]"))]} | select(.messages | length > 1)',
        ),
    ),
    FixedKeys(
        ("request.messages", "response.choices"),
        Format(
            "a logged request with its response",
            "{messages: (.request.messages + [.response.choices[0].message])}",
        ),
    ),
    FixedKeys(
        ("context", "response1", "response2", "overall_preference"),
        Format(
            "a comparison of two answers",
            '{messages: (.context + [{role: "assistant", content: '
            "(if .overall_preference > 0 then .response2 else .response1 end)}])}",
            note="train on the better answer",
        ),
    ),
    FixedKeys(
        ("context", "positive_responses"),
        Format(
            "a context with several good responses",
            "{context, response: .positive_responses[0], references: .positive_responses[1:]}",
            note="train on the first response, and compare replies with all of them",
        ),
    ),
    FixedKeys(
        ("meta_instruction", "chat.turn_1"),
        Format(
            "a MOSS dialogue",
            "{system: .meta_instruction, messages: [.chat | to_entries | "
            'sort_by(.key | ltrimstr("turn_") | tonumber)[].value | '
            '{role: "user", content: .Human}, {role: "assistant", content: .MOSS} | '
            '.content |= gsub("<\\\\|[A-Za-z]+\\\\|>: ?|<eo[a-z]>"; "")]}',
            note='keep "Human" and "MOSS" of each turn',
        ),
    ),
    FixedKeys(
        ("previous_utterance", "free_messages", "guided_messages"),
        Format(
            "a Blended Skill Talk dialogue",
            "{turns: (.previous_utterance + [[.free_messages, .guided_messages] | "
            "transpose[][] | values])}",
            note='"free_messages" become the user',
        ),
    ),
    FixedKeys(
        ("input", "ideal"),
        Format(
            "a sample of an evaluation",
            '{messages: ((.input | if type == "string" then [{role: "user", content: .}] else . '
            'end) + [{role: "assistant", content: (.ideal | if type == "array" then .[0] else . '
            "end)}])}",
            note="train on the ideal answer",
        ),
    ),
    FixedKeys(("user_name", "character_name", "create_date"), _TAVERN),
    FixedKeys(("is_user", "mes"), _TAVERN),
)

RATED = Format(
    'an answer that "label" rates as good or bad',
    "select(.label) | del(.label)",
    note="train on the good answers",
)
_ANSWERED = (
    '(map(select(has("turns"))) | INDEX(.question_id)) as $questions | .[] | '
    "select(.choices and $questions[.question_id | tostring]) | "
    "{turns: [[$questions[.question_id | tostring].turns, .choices[0].turns] | transpose[][]]}"
)
QUESTION = Format(
    "an MT-Bench question; its turns are questions without answers",
    _ANSWERED,
    needs_all=True,
    note="join it with a file of answers",
    more_files=" ANSWERS.jsonl",
)
QUESTION_WITH_REFERENCE = QUESTION._replace(
    program="{turns: [[.turns, .reference] | transpose[][]]}",
    needs_all=False,
    note="answer with the references",
    more_files="",
)
ANSWER = QUESTION._replace(
    what="a model's answers to MT-Bench questions, without the questions",
    note="join it with the file of questions",
    more_files=" QUESTIONS.jsonl",
)
NUMBERED_CONTEXTS = Format(
    "a response with numbered contexts",
    '{context: (([to_entries[] | select(.key | startswith("context/"))] | '
    "sort_by(.key[8:] | -tonumber) | map(.value)) + [.context]), response}",
    note="the highest number is the earliest turn",
)
BOT_FIRST = Format(
    "a MetaLWOz dialogue, in which the bot speaks first",
    "{messages: [.turns | to_entries[] | "
    '{role: (if .key % 2 == 0 then "assistant" else "user" end), content: .value}]}',
    note="make the bot the assistant",
)
