"""Other good replies under `references`: read where a reply is, refused or ignored elsewhere."""

from __future__ import annotations

from typing import Any

import pytest

from convo_cli.config.schema import ColumnsConfig, DataConfig
from convo_cli.data.dialogue import Turn
from convo_cli.data.fingerprint import fingerprint
from convo_cli.data.problems import Problem
from convo_cli.data.repair.values import repair_value
from convo_cli.data.shapes.turns import LineReading, read_value

CONFIG = DataConfig(train=("unused",))
USER = {"role": "user", "content": "How are you?"}
OTHERS = ["Not bad.", " Great!\r\nYou? "]


def reply(**keys: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": "Fine.", **keys}


def read(value: Any, config: DataConfig = CONFIG) -> LineReading:
    reading = read_value(value, config)
    assert reading is not None
    return reading


def refused(value: Any, config: DataConfig = CONFIG) -> list[tuple[str, str, str]]:
    problems: list[Problem] = []
    assert read_value(value, config, problems.append) is None
    return [(problem.code, problem.path, problem.message) for problem in problems]


@pytest.mark.parametrize(
    "value",
    [
        {"messages": [USER, reply(references=OTHERS)]},
        [USER, reply(references=OTHERS)],
        {"conversations": [{"from": "human", "value": "How are you?"},
                           {"from": "gpt", "value": "Fine.", "references": OTHERS}]},
        {"turns": [{"user": "How are you?"}, {"assistant": "Fine.", "references": OTHERS}]},
        {"conversation": [{"human": "How are you?", "assistant": "Fine.", "references": OTHERS}]},
        {"prompt": "How are you?", "completion": "Fine.", "references": OTHERS},
        {"context": ["How are you?"], "response": "Fine.", "references": OTHERS},
    ],
)  # fmt: skip
def test_references_are_other_texts_of_one_turn(value: Any) -> None:
    asked, answered = (turn for _, turn in read(value).turns)
    assert asked == Turn("user", "How are you?")
    assert answered == Turn("assistant", "Fine.", references=("Not bad.", "Great!\nYou?"))
    assert read(value).unread == []


def test_references_beside_a_mapped_text_are_read() -> None:
    turns = [{"who": "user", "said": "Hi"}, {"who": "bot", "said": "Hey", "references": ["Yo"]}]
    columns = ColumnsConfig(turns="talk", speaker="who", text="said")
    reading = read({"talk": turns}, CONFIG.model_copy(update={"columns": columns}))
    assert reading.turns[1][1].references == ("Yo",)


def test_references_change_neither_the_hash_of_a_dialogue_nor_its_text() -> None:
    with_others, without = ([USER, reply(**keys)] for keys in ({"references": OTHERS}, {}))
    one, other = ([turn for _, turn in read(value).turns] for value in (with_others, without))
    assert fingerprint(one) == fingerprint(other)
    assert [turn.content for turn in one] == [turn.content for turn in other]


@pytest.mark.parametrize(
    ("references", "path", "message"),
    [
        ("Great!", "", "the references are a string, not a list"),
        ({"text": "Great!"}, "", "the references are an object, not a list"),
        (["Great!", 5], "[1]", "the reference is a number, not a string"),
        (["Great!", " \n"], "[1]", "the reference is empty"),
        (["Fine. "], "[0]", "the reference is the same as the reply"),
        (["Great!", "Hi", "Great!"], "[2]", "the reference is the same as references[0]"),
    ],
)
def test_faulty_references_are_refused_by_place(references: Any, path: str, message: str) -> None:
    assert refused([USER, reply(references=references)]) == [
        ("references", f"$[1].references{path}", message)
    ]
    beside = {"prompt": "How are you?", "response": "Fine.", "references": references}
    assert refused(beside) == [("references", f"$.references{path}", message)]


def test_only_replies_have_references() -> None:
    message = "a turn of the user has references; only replies have them"
    asked = {**USER, "references": ["Hi!"]}
    assert refused([asked, reply()]) == [("references", "$[0].references", message)]
    keyed = {"turns": [{"user": "Hi", "references": ["Hello"]}, {"assistant": "Hey"}]}
    assert refused(keyed) == [("references", "$.turns[0].references", message)]


@pytest.mark.parametrize("value", [None, [], [{"doc_id": "d", "label": "solution"}], [3, 4]])
def test_documents_under_the_key_are_ignored_on_any_turn(value: Any) -> None:
    reading = read([{**USER, "references": value}, reply(references=value)])
    assert [turn.references for _, turn in reading.turns] == [(), ()]
    assert [item.path for item in reading.unread] == ["$[0].references", "$[1].references"]


def test_a_tool_call_has_no_other_replies() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "time", "arguments": "{}"}}
    asks = {"role": "assistant", "content": "One moment.", "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": "c", "content": "5", "references": ["6"]}
    reading = read([USER, {**asks, "references": ["Wait."]}, result, reply(references=["Good."])])
    assert [turn.references for _, turn in reading.turns] == [(), (), (), ("Good.",)]
    assert [item.path for item in reading.unread] == ["$[1].references", "$[2].references"]


def test_a_reference_with_reasoning_follows_the_setting() -> None:
    line = [USER, reply(references=["<think>\nHm.\n</think>\n\nGreat!"])]
    assert [code for code, *_ in refused(line)] == ["reasoning"]
    dropped = CONFIG.model_copy(update={"reasoning": "drop"})
    assert read(line, dropped).turns[1][1].references == ("Great!",)


@pytest.mark.parametrize(
    "value",
    [
        {
            "messages": [
                USER,
                reply(references=["Fine.", " ", None, "Great!", "Great! ", "&amp; you?"]),
            ]
        },
        {
            "prompt": "How are you?",
            "completion": "Fine.",
            "references": ["", "Fine.", "Great!", "& you?"],
        },
    ],
)
def test_a_repair_keeps_each_good_reference_once(value: Any) -> None:
    assert refused(value)
    assert read(repair_value(value, CONFIG)).turns[1][1].references == ("Great!", "& you?")


@pytest.mark.parametrize(
    ("reasoning", "text", "references", "kept"),
    [
        (None, "One\r\nTwo", ["One\nTwo", "a\r\nb", "a\nb"], ("a\nb",)),
        (None, [{"type": "text", "text": "One"}, {"text": "Two"}], ["One\nTwo", "c"], ("c",)),
        ("drop", "<think>1</think>Yes", ["Yes", "<think>2</think>No", "No"], ("No",)),
    ],
)
def test_a_repair_compares_texts_as_they_are_read(
    reasoning: Any, text: Any, references: list[str], kept: tuple[str, ...]
) -> None:
    config = CONFIG.model_copy(update={"reasoning": reasoning})
    line = [USER, {"role": "assistant", "content": text, "references": references}]
    assert refused(line, config)
    assert read(repair_value(line, config), config).turns[1][1].references == kept


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (
            {"turns": "talk", "speaker": "who", "text": "said"},
            {"talk": [{"who": "user", "said": "Hi"}, {"who": "bot", "said": "Hey"}]},
        ),
        ({"turns": "talk", "user": "q", "assistant": "a"}, {"talk": [{"q": "Hi", "a": "Hey"}]}),
        ({"user": "q", "assistant": "a"}, {"q": "Hi", "a": "Hey"}),
    ],
)
def test_references_of_mapped_lines_are_repaired(columns: Any, line: dict[str, Any]) -> None:
    config = CONFIG.model_copy(update={"columns": ColumnsConfig(**columns)})
    beside = line["talk"][-1] if "talk" in line else line
    beside["references"] = ["Hello &amp; hi", "", "Hey "]
    assert refused(line, config)
    fixed = read(repair_value(line, config), config)
    assert fixed.turns[1][1].references == ("Hello & hi",)
