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


def refused(value: Any) -> list[tuple[str, str, str]]:
    problems: list[Problem] = []
    assert read_value(value, CONFIG, problems.append) is None
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


def test_a_reference_with_reasoning_follows_the_setting() -> None:
    line = [USER, reply(references=["<think>\nHm.\n</think>\n\nGreat!"])]
    assert [code for code, *_ in refused(line)] == ["reasoning"]
    dropped = CONFIG.model_copy(update={"reasoning": "drop"})
    assert read(line, dropped).turns[1][1].references == ("Great!",)


@pytest.mark.parametrize(
    "value",
    [
        {"messages": [USER, reply(references=["Fine.", " ", "Great!", "Great! ", "&amp; you?"])]},
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
