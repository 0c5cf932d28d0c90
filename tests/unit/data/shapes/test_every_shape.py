"""A dialogue reads back as the same turns from every shape that can hold it."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convo_cli.config.schema import DataConfig
from convo_cli.data.dialogue import Turn
from convo_cli.data.problems import refuse
from convo_cli.data.shapes.items.turn_keys import AUTHOR_KEYS, LISTS, SPEAKER_KEYS, TEXT_KEYS
from convo_cli.data.shapes.table import COMMON_LISTS, PAIRS, SYSTEM_KEYS
from convo_cli.data.shapes.turns import read_value
from convo_cli.data.strict_json.decoder import decode

CONFIG = DataConfig(train=("unused",))
TEXTS = st.sampled_from(["Hello", "a\nb", "[INST] a", '{"a": 1}', "é", "user", "data", '"', "1"])
EXCHANGES = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4)
SYSTEM = "Be kind."


def read(value: Any) -> tuple[Turn, ...]:
    reading = read_value(decode(json.dumps(value).encode(), refuse), CONFIG)
    assert reading is not None
    assert reading.unread == []
    return tuple(turn for _, turn in reading.turns)


def said(exchanges: list[tuple[str, str]], system: str = "") -> tuple[Turn, ...]:
    turns = [Turn("system", system)] if system else []
    for question, answer in exchanges:
        turns += [Turn("user", question), Turn("assistant", answer)]
    return tuple(turns)


Pairs = list[tuple[str, str]]
FORMS: dict[str, Callable[[Pairs], list[Any]]] = {
    "texts": lambda pairs: [text for pair in pairs for text in pair],
    "pairs": lambda pairs: [list(pair) for pair in pairs],
    "firefly": lambda pairs: [{"human": a, "assistant": b} for a, b in pairs],
    "xtuner": lambda pairs: [{"input": a, "output": b} for a, b in pairs],
    "names as keys": lambda pairs: [t for a, b in pairs for t in ({"user": a}, {"AI": b})],
    "inside message": lambda pairs: [
        {"message": {"role": role, "content": text}}
        for pair in pairs
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ],
    "half named": lambda pairs: [t for a, b in pairs for t in (a, {"role": "Claude", "text": b})],
    "parts": lambda pairs: [
        {"role": role, "content": [{"type": "text", "text": text}]}
        for pair in pairs
        for role, text in zip(("USER", "bing"), pair, strict=True)
    ],
    **{
        f"{speaker} and {text}": lambda pairs, speaker=speaker, text=text: [  # type: ignore[misc]
            {speaker: role, text: content}
            for pair in pairs
            for role, content in zip(("Human", "ChatGPT"), pair, strict=True)
        ]
        for speaker, text in zip(SPEAKER_KEYS + AUTHOR_KEYS, TEXT_KEYS, strict=True)
    },
}


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=4)
@given(pairs=EXCHANGES, key=st.sampled_from(LISTS + COMMON_LISTS), at=st.sampled_from(SYSTEM_KEYS))
def test_a_list_of_turns_reads_the_same_in_every_form(
    form: str, pairs: Pairs, key: str, at: str
) -> None:
    turns = FORMS[form](pairs)
    if form != "xtuner":  # a list of such objects is an array of dialogues
        assert read(turns) == read(json.dumps(turns)) == said(pairs)
    for value in (turns, json.dumps(turns)):
        assert read({key: value, at: SYSTEM}) == said(pairs, SYSTEM)
    assert read({"dialog": [turns]}) == said(pairs)


@pytest.mark.parametrize("keys", PAIRS)
@settings(max_examples=3)
@given(pairs=EXCHANGES, form=st.sampled_from(sorted(FORMS)), at=st.sampled_from(SYSTEM_KEYS))
def test_a_pair_reads_the_same_under_its_keys_after_any_history(
    keys: tuple[str, str], pairs: Pairs, form: str, at: str
) -> None:
    *earlier, (question, answer) = pairs
    history = FORMS[form](earlier) if form != "half named" else []
    expected = said(earlier if history else [], SYSTEM) + said([(question, answer)])
    line = {at: SYSTEM, keys[0]: question, keys[1]: answer}
    for value in (history, json.dumps(history), [list(pair) for pair in earlier][: len(history)]):
        assert read(line | {"history": value}) == expected
    parts = [{"type": "text", "text": text} for text in (question, "b")]
    assert read({keys[0]: parts, keys[1]: answer}) == said([(f"{question}\nb", answer)])


@pytest.mark.parametrize(
    ("line", "texts"),
    [
        ({"char_name": "Zed", "dialogue": [{"speaker": "Zed", "text": "a"}, {"user": "b"}]}, "Aab"),
        ({"dialog": [[{"id": "teacher", "text": "a"}, {"id": "model", "text": "b"}]] * 2}, "Uabab"),
        ({"context": ["a", "b"], "response": "c"}, "Aabc"),
        ([{"role": "system", "content": "a"}, "b", "c"], "Sabc"),
        ([["Assistant", "a"], ["USER", "b"]], "Aab"),
        ({"conversation": [["system", "a"], ["human", "b"], ["bot", "c"]]}, "Sabc"),
    ],
)
def test_speakers_are_those_that_the_line_implies(line: Any, texts: str) -> None:
    turns = read(line)
    assert [turn.text for turn in turns] == list(texts[1:])
    roles = [turn.role for turn in turns]
    assert roles[0][0] == texts[0].lower()
    assert all(before != after for before, after in pairwise(roles))


@pytest.mark.parametrize(
    ("line", "unread"),
    [
        ({"messages": ["a", "b"], "question": "a", "answer": "72"}, {"question", "answer"}),
        ({"instruction": "a", "output": "b", "context": "c"}, {"context"}),
        ({"messages": None, "prompt": "a", "response": "b"}, {"messages"}),
        ({"data": ["a", "b"], "input": "c", "output": "d"}, {"data"}),
        ({"conversation": "c17", "prompt": "a", "completion": "b"}, {"conversation"}),
    ],
)
def test_of_several_shapes_the_first_is_read_and_the_others_are_unread(
    line: dict[str, Any], unread: set[str]
) -> None:
    reading = read_value(line, CONFIG)
    assert reading is not None
    assert {item.key for item in reading.unread} == unread
