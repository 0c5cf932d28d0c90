"""Named formats: each is recognised, and the printed command converts a file of it."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convo_cli.config.schema import DataConfig
from convo_cli.data.checks.report import FileReport
from convo_cli.data.checks.validate import validate_files
from convo_cli.data.conversions.commands import as_hint, by_jq, jq_path, jq_string
from convo_cli.data.conversions.lines import other_format
from convo_cli.data.reader import read_dialogues
from convo_cli.data.repair.copies import repair_files

CONFIG = DataConfig(train=("unused",))
Turns = list[tuple[str, str]]


def report_on(path: Path) -> FileReport:
    return validate_files([str(path)], CONFIG).files[0]


def printed_command(path: Path) -> list[str]:
    """The words of the command in the hint for a file."""
    (group, *_) = report_on(path).problem_groups
    assert group.code == "other-format", group
    return shlex.split(group.hint[group.hint.index(": ") + 2 :])


def run_jq(command: list[str], folder: Path) -> list[Any]:
    """The values that a printed jq command writes."""
    jq = pytest.importorskip("jq", reason="the package jq is not installed")
    assert command[0] == "jq"
    assert command[-2:] == [">", "out.jsonl"]
    flags, program, *files = command[1:-2]
    text = "".join((folder / file).read_text(encoding="utf-8") for file in files)
    values: list[Any] = jq.compile(program).input_text(text, slurp="s" in flags).all()
    return values


def converted(path: Path) -> list[Turns]:
    """The dialogues that convo reads from the output of the printed command."""
    out = path.with_name("converted.jsonl")
    values = run_jq(printed_command(path), path.parent)
    out.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return [
        [(turn.role, turn.text) for turn in dialogue.turns]
        for dialogue in read_dialogues([str(out)], CONFIG)
    ]


def write(folder: Path, *values: Any) -> Path:
    path = folder / "it's data.jsonl"
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return path


TEA: Turns = [("user", "Which tea is green?"), ("assistant", "Sencha, for example.")]
MORE: Turns = [*TEA, ("user", "And black?"), ("assistant", "Assam.\n\nIt is strong.")]
SYSTEM: Turns = [("system", "You sell tea.")]

CHATML = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n{}<|im_end|>\n"
TAGGED = {
    "hh": "\n\nHuman: {}\n\nAssistant: {}\n\nHuman: {}\n\nAssistant: {}",
    "user-bot": "User: {}\nBot: {}\nUser: {}\nBot: {}",
    "guanaco": "### Human: {}### Assistant: {}### Human: {}### Assistant: {}",
    "zephyr": "<|user|>\n{}</s>\n<|assistant|>\n{}</s>\n<|user|>\n{}</s>\n<|assistant|>\n{}</s>",
    "chatml": CHATML * 2,
    "llama-2": "<s>[INST] {} [/INST] {} </s><s>[INST] {} [/INST] {} </s>",
    "llama-3": "<|begin_of_text|>" + "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n{}<|eot_id|>" * 2,
    "gemma": "<bos>"
    + "<start_of_turn>user\n{}<end_of_turn>\n<start_of_turn>model\n{}<end_of_turn>\n" * 2,
    "vicuna": "USER: {} ASSISTANT: {}</s>USER: {} ASSISTANT: {}</s>",
    "alpaca": "Below is an instruction.\n\n" + "### Instruction:\n{}\n\n### Response:\n{}\n\n" * 2,
    "baize": "[|Human|] {}\n[|AI|] {}\n" * 2,
    "deepseek": "<｜User｜>{}<｜Assistant｜>{}<｜end▁of▁sentence｜>" * 2,
    "redpajama": "<human>: {}\n<bot>: {}\n" * 2,
    "bold": "**User:** {}\n\n**Assistant:** {}\n\n" * 2,
    "questions": "Q: {}\nA: {}\nQ: {}\nA: {}",
}


@pytest.mark.parametrize("form", TAGGED)
def test_a_text_with_tags_is_cut_where_its_turns_begin(tmp_path: Path, form: str) -> None:
    text = TAGGED[form].format(*(text for _, text in MORE))
    assert converted(write(tmp_path, {"dialogue text": text, "id": "x"})) == [MORE]
    assert converted(write(tmp_path, text)) == [MORE]
    assert converted(write(tmp_path, {"dialogue": text})) == [MORE]


@pytest.mark.parametrize(
    "text",
    [
        "<|system|>\nYou sell tea.</s>\n<|user|>\n{}</s>\n<|assistant|>\n{}</s>",
        "<|im_start|>system\nYou sell tea.<|im_end|>\n" + CHATML,
        "<s>[INST] <<SYS>>\nYou sell tea.\n<</SYS>>\n\n{} [/INST] {} </s>",
        "You sell tea. USER: {} ASSISTANT: {}</s>",
        "### System:\nYou sell tea.\n\n### User:\n{}\n\n### Assistant:\n{}",
    ],
)
def test_the_system_turn_of_a_tagged_text_is_kept(tmp_path: Path, text: str) -> None:
    first = TAGGED["zephyr"].format(*(text for _, text in MORE))
    text = text.format(*(text for _, text in TEA))
    assert converted(write(tmp_path, {"text": text})) == [SYSTEM + TEA]
    if "<|system|>" in text:  # also if only a later line has one
        assert converted(write(tmp_path, {"text": first}, {"text": text})) == [MORE, SYSTEM + TEA]


def test_the_input_of_an_alpaca_text_belongs_to_its_instruction(tmp_path: Path) -> None:
    text = "Below.\n\n### Instruction:\nSort:\n\n### Input:\nb, a\n\n### Response:\na, b"
    assert converted(write(tmp_path, {"text": text})) == [
        [("user", "Sort:\n\nb, a"), ("assistant", "a, b")]
    ]


def test_a_text_without_both_speakers_is_not_tagged() -> None:
    for text in ("User: Hi", "Bot: Hi", "A note.\nAnswer: 4", "a [INST] b", "", "x < y > z"):
        assert other_format({"text": text}, is_dialogue=False) is None


def as_messages(turns: Turns) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in turns]


PREFERENCES: dict[str, Any] = {
    "whole lists": {"chosen": as_messages(MORE), "rejected": as_messages(TEA), "prompt": "x"},
    "prompt and last turns": {
        "prompt": MORE[0][1],
        "chosen": as_messages(MORE[1:]),
        "rejected": [],
        "score": 3,
    },
    "lists": {
        "prompt": as_messages(MORE[:3]),
        "chosen": as_messages(MORE[3:]),
        "rejected": [],
    },
    "one turn each": {
        "conversations": [
            {"from": "human", "value": MORE[0][1]},
            {"from": "gpt", "value": MORE[1][1]},
            {"from": "human", "value": MORE[2][1]},
        ],
        "chosen": {"from": "gpt", "value": MORE[3][1]},
        "rejected": {"from": "gpt", "value": "x"},
    },
    "tagged": {"chosen": TAGGED["hh"].format(*(text for _, text in MORE)), "rejected": "y"},
    "tagged prompt": {
        "prompt": TAGGED["hh"].format(*(text for _, text in MORE[:3]), ""),
        "chosen": MORE[3][1],
        "rejected": "x",
    },
    "list and text": {
        "messages": as_messages(MORE[:3]),
        "chosen": MORE[3][1],
        "rejected": "no",
    }
    | {"messages": None, "prompt": as_messages(MORE[:3])},
}


def test_messages_of_several_dialogues_on_one_line_are_no_dialogue(tmp_path: Path) -> None:
    rows = [
        {"conversation_id": number, **turn}
        for number, turns in enumerate((TEA, MORE))
        for turn in as_messages(turns)
    ]
    assert converted(write(tmp_path, rows)) == [TEA, MORE]


def test_an_answer_that_is_called_bad_is_not_trained_on(tmp_path: Path) -> None:
    (_, asked), (_, answer) = TEA
    good, bad = (
        {"prompt": asked, "completion": text, "label": text == answer} for text in (answer, "No.")
    )
    assert converted(write(tmp_path, bad, good)) == [TEA]


@pytest.mark.parametrize("form", PREFERENCES)
def test_of_a_preference_pair_the_chosen_answer_is_kept(tmp_path: Path, form: str) -> None:
    value = {key: item for key, item in PREFERENCES[form].items() if item is not None}
    assert converted(write(tmp_path, value, value)) == [MORE, MORE]


def test_a_prompt_with_two_answers_becomes_a_dialogue(tmp_path: Path) -> None:
    value = {"system": "You sell tea.", "question": TEA[0][1], "chosen": TEA[1][1], "rejected": "x"}
    assert converted(write(tmp_path, value)) == [SYSTEM + TEA]
    ref = {"history": TEA[0][1], "human_ref_A": "x", "human_ref_B": TEA[1][1], "labels": 0}
    assert converted(write(tmp_path, ref)) == [TEA]
    safe = {
        "prompt": TEA[0][1],
        "response_0": "x",
        "response_1": TEA[1][1],
        "better_response_id": 1,
    }
    assert converted(write(tmp_path, safe)) == [TEA]
    arena = {"conversation_a": [], "conversation_b": as_messages(TEA), "winner": "model_b"}
    assert converted(write(tmp_path, arena)) == [TEA]


def test_messages_are_joined_by_their_dialogue_in_their_order(tmp_path: Path) -> None:
    def rows(**keys: str) -> list[dict[str, Any]]:
        return [
            {
                keys["dialogue"]: name,
                keys["order"]: order,
                keys["speaker"]: role,
                keys["text"]: text,
            }
            for name, turns in (("d1", MORE), ("d2", TEA))
            for order, (role, text) in sorted(enumerate(turns), reverse=True)
        ]

    named = rows(dialogue="conv id", order="turn-no", speaker="speaker", text="utterance")
    assert converted(write(tmp_path, *named)) == [MORE, TEA]
    people = {"user": "Ada", "assistant": "Ben"}
    other = [
        row | {"author": people[row["author"]]}
        for row in rows(dialogue="session_id", order="ts", speaker="author", text="message")
    ]
    assert converted(write(tmp_path, *other)) == [MORE, TEA]


def test_empathetic_dialogues_and_replies_are_joined(tmp_path: Path) -> None:
    rows = [
        {
            "conv_id": "hit:3",
            "utterance_idx": str(index),
            "context": "proud",
            "prompt": "p",
            "speaker_idx": str(index % 2 + 7),
            "utterance": text.replace(",", "_comma_"),
        }
        for index, (_, text) in enumerate(MORE * 3, 1)
    ]
    assert converted(write(tmp_path, *reversed(rows))) == [MORE * 3]
    replies = [
        {
            "id": f"L{index}",
            "conversation_id": "L0",
            "text": text,
            "speaker": f"u{index % 2}",
            "reply-to": f"L{index - 1}" if index else None,
        }
        for index, (_, text) in enumerate(MORE)
    ]
    branch = {**replies[3], "id": "L9", "text": "Oolong."}
    assert converted(write(tmp_path, *reversed(replies), branch)) == [
        MORE,
        [*MORE[:3], ("assistant", "Oolong.")],
    ]


def test_fixed_formats_are_converted(tmp_path: Path) -> None:
    texts = [text for _, text in MORE]
    persona = {
        "personality": ["i sell tea.", "i am old."],
        "utterances": [
            {"candidates": ["x", texts[1]], "history": texts[:1]},
            {"candidates": ["x", "y", texts[3]], "history": texts[:3]},
        ],
    }
    assert converted(write(tmp_path, persona)) == [[("system", "i sell tea.\ni am old."), *MORE]]
    log = {
        "tstamp": 1,
        "type": "chat",
        "state": {
            "roles": ["USER", "ASSISTANT"],
            "system_message": "You sell tea.",
            "messages": [["user", texts[0]], ["assistant", texts[1]]],
        },
    }
    assert converted(write(tmp_path, log)) == [SYSTEM + TEA]
    rounds = [
        [{"id": "x", "text": texts[0]}, {"id": "y", "text": texts[1]}],
        [{"id": "x", "text": texts[2]}, {"id": "y", "text": texts[3]}],
    ]
    assert converted(write(tmp_path, {"rounds here": rounds})) == [MORE]
    pairs = [{"q": texts[0], "a": texts[1]}, {"q": texts[2], "a": texts[3]}]
    assert converted(write(tmp_path, {"the pairs": pairs})) == [MORE]
    call = {
        "request": {"messages": as_messages(MORE[:3])},
        "response": {"choices": [{"message": {"role": "assistant", "content": texts[3]}}]},
    }
    assert converted(write(tmp_path, call)) == [MORE]
    nodes: dict[str, Any] = {"r": {"message": None, "parent": None}}
    for index, (role, text) in enumerate(MORE):
        message = {"author": {"role": role}, "content": {"content_type": "text", "parts": [text]}}
        nodes[str(index)] = {"message": message, "parent": str(index - 1) if index else "r"}
    nodes["x"] = {**nodes["3"], "parent": "0"}
    assert converted(write(tmp_path, {"mapping": nodes, "current_node": "3"})) == [MORE]
    claude = {
        "uuid": "x",
        "chat_messages": [
            {"sender": {"user": "human"}.get(role, role), "text": text} for role, text in MORE
        ],
    }
    assert converted(write(tmp_path, claude)) == [MORE]
    tavern: list[dict[str, Any]] = [{"user_name": "You", "character_name": "Z"}]
    tavern += [{"name": role, "is_user": role == "user", "mes": text} for role, text in MORE]
    path = write(tmp_path, *tavern[1:], tavern[0])
    assert converted(path) == [MORE]


def test_questions_of_a_benchmark_are_joined_with_answers(tmp_path: Path) -> None:
    question = {"question_id": 4, "category": "tea", "turns": [MORE[0][1], MORE[2][1]]}
    answered = [MORE[1][1], MORE[3][1]]
    assert converted(write(tmp_path, question | {"reference": answered})) == [MORE]
    choice = {"index": 0, "turns": answered}
    answer = {"question_id": 4, "model_id": "m", "choices": [choice]}
    (tmp_path / "ANSWERS.jsonl").write_text(json.dumps(answer), encoding="utf-8")
    assert converted(write(tmp_path, question)) == [MORE]
    (tmp_path / "QUESTIONS.jsonl").write_text(json.dumps(question), encoding="utf-8")
    assert converted(write(tmp_path, answer)) == [MORE]


@pytest.mark.parametrize(
    ("value", "options"),
    [
        ({"message_tree_id": "t", "prompt": {"text": "a", "replies": []}}, []),
        ({"message_id": "m", "parent_id": None, "text": "a", "role": "prompter"}, []),
        (
            {"type": "message", "user": "U7", "text": "a", "ts": "1700000000.1"},
            ["--assistant", "U7"],
        ),
        ({"author": {"name": "Ada's $(id)"}, "content": "a"}, ["--assistant", "Ada's $(id)"]),
        ({"sender": "--help", "message": "a", "timestamp": "2024"}, ["--assistant=--help"]),
    ],
)
def test_dumps_and_chats_are_imported(tmp_path: Path, value: Any, options: list[str]) -> None:
    command = printed_command(write(tmp_path, value))
    expected = ["convo", "import", str(tmp_path / "it's data.jsonl")]
    assert command == [*expected, *options, "-o", "out.jsonl"]


HOSTILE = (
    "a key",
    "it's",
    'say "hi"',
    "$(touch hacked)",
    "`touch hacked`",
    "a\nb",
    "\\(input)",
    "\\",
    ".a|env",
    "'; touch hacked; '",
    "\u202e\x7f",
    "ключ",
    "😀",
    "",
)


@pytest.mark.parametrize("key", HOSTILE)
def test_no_key_adds_code_to_the_command(tmp_path: Path, key: str) -> None:
    text = TAGGED["hh"].format(*(text for _, text in MORE))
    assert converted(write(tmp_path, {key: text})) == [MORE]
    path = tmp_path / f"{key}.jsonl"
    path.write_text(json.dumps({key: text}) + "\n", encoding="utf-8")
    (group,) = report_on(path).problem_groups
    assert group.hint.isprintable()
    command = group.hint[group.hint.index(": ") + 2 : -len(" > out.jsonl")]
    shown = subprocess.run(
        ["bash", "-c", f"jq() {{ printf '%s\\0' \"$@\"; }}; {command}"],
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    assert shown.stdout.split(b"\0")[2] == str(path).encode()
    assert not (tmp_path / "hacked").exists()


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=8))
def test_a_key_is_one_string_of_jq(key: str) -> None:
    jq = pytest.importorskip("jq", reason="the package jq is not installed")
    assert jq.compile(jq_path(key)).input_value({key: 7}).all() == [7]
    assert jq.compile(jq_string(key)).input_value(None).all() == [key]
    hint = as_hint(by_jq(jq_string(key), "note"), "a.jsonl")
    assert shlex.split(hint)[3] == jq_string(key)


def test_a_compressed_file_is_unpacked_for_jq() -> None:
    hint = as_hint(by_jq(".", "note"), "a b.jsonl.gz")
    assert hint == "note: gzip -dc 'a b.jsonl.gz' | jq -c . > out.jsonl"
    assert as_hint(by_jq(".", "note"), "-") == "note: jq -c . FILE > out.jsonl"


def test_dialogues_are_not_taken_for_another_format() -> None:
    for value in (
        {"turns": ["a", "b"], "category": "c"},
        {"messages": [], "chosen": [], "rejected": []},
        {"question_id": 3, "messages": []},
        {"conversations": [{"from": "human", "value": "Human: a"}]},
        ["Human: a\n\nAssistant: b"],
    ):
        assert other_format(value, is_dialogue=True) is None
    for other in ({}, {"a": 1}, 3, None, {"conversation_id": "x"}, {"text": 4}, {"chosen": "a"}):
        assert other_format(other, is_dialogue=False) is None


KEYS = """
    chosen rejected prompt turns question_id choices author content text ts mapping current_node
    state messages roles personality utterances speaker conv_id id
"""
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS.split()),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_any_value_is_recognised_or_not(value: Any) -> None:
    for is_dialogue in (True, False):
        problem = other_format(value, is_dialogue=is_dialogue)
        assert problem is None or (problem.hint and problem.code == "other-format")


@pytest.mark.parametrize(
    "content",
    [
        "{'turns': [\"It's me\", 'Hi'], 'id': None}",
        "['It is me', 'Hi']",
        '["It is me", "Hi"],',
        '[{"turns": ["It is me", "Hi"]}, {"turns": ["a", "b"]}]',
        '[\n  ["It is me",\n   "Hi"]\n]',
        '{\n "turns": ["It is me", "Hi"]\n}\n{\n "turns": ["a", "b"]\n}',
    ],
)
def test_what_a_repair_can_read_has_the_command_of_the_repair(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a b.jsonl"
    path.write_text(content + "\n", encoding="utf-8")
    (group,) = report_on(path).problem_groups
    command = shlex.split(group.hint[group.hint.index(": ") + 2 :])
    assert command == ["convo", "validate-data", str(path), "--fix", "out.jsonl"]
    written: list[bytes] = []
    repair_files([str(path)], written.append, CONFIG)
    assert b"me" in written[0]
