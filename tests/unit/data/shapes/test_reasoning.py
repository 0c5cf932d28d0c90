"""Reasoning is kept or dropped as data.reasoning says, and refused if it is not set."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convo_cli.config.schema import DataConfig, Reasoning
from convo_cli.data.problems import Problem
from convo_cli.data.shapes.known_keys import REASONING_KEYS
from convo_cli.data.shapes.turns import read_value

USER = {"role": "user", "content": "2+2?"}
THOUGHT = "Two and two."
KEPT = f"<think>\n{THOUGHT}\n</think>\n\n4"
TEXTS = (
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<>\0\r"))
    .map(str.strip)
    .filter(bool)
)


def reply(text: Any, **keys: Any) -> list[Any]:
    return [USER, {"role": "assistant", "content": text, **keys}]


def texts(value: Any, reasoning: Reasoning | None) -> list[str]:
    reading = read_value(value, DataConfig(train=("unused",), reasoning=reasoning))
    assert reading is not None
    assert [turn.has_reasoning for _, turn in reading.turns] == [False, True]
    return [turn.text for _, turn in reading.turns]


def refused(value: Any, reasoning: Reasoning | None = None) -> list[tuple[str, str]]:
    problems: list[Problem] = []
    config = DataConfig(train=("unused",), reasoning=reasoning)
    assert read_value(value, config, problems.append) is None
    return [(problem.code, problem.path) for problem in problems]


FORMS: dict[str, tuple[Any, str]] = {
    **{key: (reply("4", **{key: THOUGHT}), f"$[1].{key}") for key in REASONING_KEYS},
    **{
        key: (reply("4", **{key: THOUGHT}), f"$[1].{key}")
        for key in (
            "Thinking",
            "reasoningContent",
            "reasoning_text",
            "thought",
            "thoughts",
            "chain_of_thought",
        )
    },
    "tags": (reply(KEPT), "$[1].content"),
    "a list of texts": (["2+2?", KEPT], "$[1]"),
    "a completion": ({"prompt": "2+2?", "completion": KEPT}, "$.completion"),
    "a key beside a completion": (
        {"prompt": "2+2?", "completion": "4", "thinking": THOUGHT},
        "$.thinking",
    ),
    "a key beside an output": (
        {"instruction": "2+2?", "output": "4", "reasoning_content": THOUGHT},
        "$.reasoning_content",
    ),
    "tags in a key": (reply("4", thinking=f"<think>{THOUGHT}</think>"), "$[1].thinking"),
    "twice the same": (
        reply(KEPT, reasoning=THOUGHT, reasoning_content=f" {THOUGHT}\n"),
        "$[1].reasoning",
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_reasoning_is_kept_in_one_form_or_dropped(form: str) -> None:
    value, path = FORMS[form]
    assert texts(value, "keep") == ["2+2?", KEPT]
    assert texts(value, "drop") == ["2+2?", "4"]
    assert refused(value) == [("reasoning", path)]


@given(
    TEXTS,
    TEXTS,
    st.sampled_from(["<think>", "<THINK>", "<Think>"]),
    st.sampled_from(["", "\n", " \n\n"]),
)
def test_a_text_with_tags_is_kept_as_it_is(thought: str, answer: str, tag: str, space: str) -> None:
    text = f"{tag}{space}{thought}{space}{tag.replace('<', '</')}{space}{answer}"
    assert texts(reply(text), "keep") == ["2+2?", text]
    assert texts(reply(text), "drop") == ["2+2?", answer]


@given(TEXTS, TEXTS, st.sampled_from(REASONING_KEYS))
def test_a_key_is_kept_before_the_answer(thought: str, answer: str, key: str) -> None:
    assert texts(reply(answer, **{key: thought}), "keep") == [
        "2+2?",
        f"<think>\n{thought}\n</think>\n\n{answer}",
    ]
    assert texts(reply(answer, **{key: thought}), "drop") == ["2+2?", answer]


def test_every_block_of_a_text_is_dropped() -> None:
    assert texts(reply("<think>a</think> One. <think>b</think> Two."), "drop") == [
        "2+2?",
        "One. Two.",
    ]
    assert texts(reply("One.\n<think>a\n\nb</think>\nTwo."), "drop") == ["2+2?", "One.\nTwo."]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("One<think>a</think> two.", "One two."),
        ("One <think>a</think> <think >b</think >two.", "One two."),
        ("One:\n<think>a</think>\n\ntwo.", "One:\n\ntwo."),
        ("On<think>a</think>e.", "One."),
        ("<THINK\n>a</think >One.", "One."),
    ],
)
def test_dropping_joins_no_words(text: str, left: str) -> None:
    assert texts(reply(text), "drop") == ["2+2?", left]
    assert texts(reply(text), "keep") == ["2+2?", text]


@pytest.mark.parametrize("key", ["reasoning", "Thinking"])
@pytest.mark.parametrize(
    "value",
    [
        {"messages": reply("4")},
        {"turns": ["2+2?", "4"]},
        {"prompt": [USER], "completion": reply("4")[1:]},
    ],
    ids=lambda value: next(iter(value)),
)
def test_reasoning_beside_a_list_of_turns_belongs_to_none_of_them(
    value: dict[str, Any], key: str
) -> None:
    value = value | {key: THOUGHT}
    assert refused(value) == [("reasoning", f"$.{key}")]
    assert refused(value, "keep") == [("reasoning-place", f"$.{key}")]
    reading = read_value(value, DataConfig(train=("unused",), reasoning="drop"))
    assert reading is not None
    assert [item.path for item in reading.unread] == [f"$.{key}"]


@pytest.mark.parametrize("reasoning", [None, "keep", "drop"])
@pytest.mark.parametrize(
    "text",
    [
        "<think>4",
        "4</think>",
        "</think>4<think>",
        "<think>a<think>b</think>4",
        "<think></think></think>4",
    ],
)
def test_tags_that_do_not_match_are_refused(text: str, reasoning: Reasoning | None) -> None:
    assert refused(reply(text), reasoning) == [("reasoning-tags", "$[1].content")]


@pytest.mark.parametrize("reasoning", [None, "keep", "drop"])
def test_text_that_is_not_the_assistants_reasoning_is_unchanged(
    reasoning: Reasoning | None,
) -> None:
    config = DataConfig(train=("unused",), reasoning=reasoning)
    for value in (
        ["What is <think>?", "A tag."],
        [{"role": "system", "content": "Begin with <think>."}, USER, {"role": "bot", "text": "4"}],
        reply("4", reasoning_content=None, thinking="", reasoning=False),
        reply("4", thinking=" \n", reasoning=[]),
        reply("Write <thinking> or < think>."),
    ):
        reading = read_value(value, config)
        assert reading is not None
        assert not any(turn.has_reasoning for _, turn in reading.turns)
        assert reading.unread == []
    beside_a_user = read_value([USER | {"thinking": "Hm."}, {"role": "bot", "text": "4"}], config)
    assert beside_a_user is not None
    assert [key for _, key, _ in beside_a_user.unread] == ["thinking"]


def test_a_reply_of_reasoning_alone_is_empty_without_it() -> None:
    only_tags = reply("<think>Two.</think>")
    assert texts(only_tags, "keep") == ["2+2?", "<think>Two.</think>"]
    assert refused(only_tags, "drop") == [("empty-utterance", "$[1].content")]
    for reasoning in ("keep", "drop"):
        assert refused(reply("", thinking="Two."), reasoning) == [
            ("empty-utterance", "$[1].content")
        ]


def test_two_texts_of_reasoning_or_a_value_that_is_not_a_string_are_refused_if_kept() -> None:
    two = reply("<think>Three.</think>4", thinking=THOUGHT)
    parts = reply("4", thinking=[{"type": "thinking", "thinking": THOUGHT}])
    assert refused(two, "keep") == [("reasoning-twice", "$[1].thinking")]
    assert refused(reply("4", thinking="a", reasoning="b"), "keep") == [
        ("reasoning-twice", "$[1].thinking")
    ]
    assert refused(parts, "keep") == [("text-not-string", "$[1].thinking")]
    assert refused(reply("4", thinking="a</think>b"), "keep") == [
        ("reasoning-tags", "$[1].thinking")
    ]
    for value in (two, parts):
        assert texts(value, "drop") == ["2+2?", "4"]
        assert [code for code, _ in refused(value)] == ["reasoning"]
