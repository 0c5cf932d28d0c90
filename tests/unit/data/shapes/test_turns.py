from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convo_cli.config.schema import DataConfig, SpeakersConfig
from convo_cli.data.dialogue import Role, Turn
from convo_cli.data.problems import Problem, ProblemError, refuse
from convo_cli.data.shapes.table import SHAPES, shape_of
from convo_cli.data.shapes.turns import read_value
from convo_cli.data.strict_json.columns import locate
from convo_cli.data.strict_json.decoder import decode
from convo_cli.errors import ConfigError

CONFIG = DataConfig(train=("unused",))
BEGUN_BY_ASSISTANT = DataConfig(train=("unused",), first_speaker="assistant")

TEXTS = (
    st.text(
        st.characters(
            exclude_categories=["Cs"],
            exclude_characters=[chr(i) for i in range(32) if i not in (9, 10)],
        )
    )
    .map(str.strip)
    .filter(bool)
)
SPACE = st.sampled_from(["", " ", "\n", "\t ", "\u3000"])
TALK: st.SearchStrategy[list[Turn]] = st.lists(
    st.builds(Turn, st.sampled_from(["user", "assistant"]), TEXTS, st.booleans()),
    min_size=1,
    max_size=6,
)
DIALOGUES = st.builds(
    lambda system, turns: [Turn("system", system), *turns] if system else turns,
    st.none() | TEXTS,
    TALK,
)
NAMES: dict[Role, list[str]] = {
    "user": ["user", "Human", "CUSTOMER"],
    "assistant": ["assistant", "gpt", "Bot"],
    "system": ["system", "System"],
}


def alternating(texts: list[str], first: Role = "user") -> tuple[Turn, ...]:
    second: Role = "assistant" if first == "user" else "user"
    return tuple(Turn((first, second)[index % 2], text) for index, text in enumerate(texts))


def read(value: Any, config: DataConfig = CONFIG) -> tuple[Turn, ...]:
    """The turns of a value, by way of its line."""
    reading = read_value(decode(json.dumps(value).encode(), refuse), config)
    assert reading is not None
    return tuple(turn for _, turn in reading.turns)


def problems_of(value: Any, config: DataConfig = CONFIG) -> list[tuple[str, str]]:
    problems: list[Problem] = []
    assert read_value(value, config, problems.append) is None
    return [(problem.code, problem.path) for problem in problems]


@given(st.lists(TEXTS, min_size=1), SPACE)
def test_a_plain_list_alternates_from_the_first_speaker(texts: list[str], space: str) -> None:
    spaced = [space + text + space for text in texts]
    for value in (spaced, {"turns": spaced}, {"messages": spaced}):
        assert read(value) == alternating(texts)
        assert read(value, BEGUN_BY_ASSISTANT) == alternating(texts, "assistant")


@given(DIALOGUES, SPACE, st.data())
def test_a_dialogue_reads_the_same_in_every_shape_that_names_its_speakers(
    turns: list[Turn], space: str, data: st.DataObject
) -> None:
    speaker_key, text_key = data.draw(
        st.sampled_from([("role", "content"), ("from", "value"), ("speaker", "text")])
    )
    named = []
    for turn in turns:
        item: dict[str, Any] = {
            speaker_key: data.draw(st.sampled_from(NAMES[turn.role])),
            text_key: space + turn.text + space,
        }
        if not turn.is_trained or data.draw(st.booleans()):
            item["train"] = turn.is_trained
        named.append(item)
    cut = data.draw(st.integers(1, len(named)))
    shapes: list[Any] = [named, *({key: named} for key in ("messages", "turns", "conversations"))]
    if cut < len(named):
        shapes.append({"prompt": named[:cut], "completion": named[cut:]})
    if turns[0].role == "system" and len(turns) > 1:
        shapes += [
            {"conversations": named[1:], "system": turns[0].text},
            {"messages": named[1:], "system": space + turns[0].text},
        ]

    for value in shapes:
        assert read(value) == tuple(turns)


@given(TEXTS, TEXTS, st.none() | TEXTS, SPACE)
def test_one_question_and_answer_reads_the_same_in_every_shape_of_two_keys(
    question: str, answer: str, system: str | None, space: str
) -> None:
    expected = ((Turn("system", system),) if system else ()) + (
        Turn("user", question),
        Turn("assistant", answer),
    )
    above = {"system": system}
    assert read({**above, "prompt": space + question, "completion": answer + space}) == expected
    assert read({**above, "instruction": question + space, "output": space + answer}) == expected
    assert read({**above, "instruction": question, "input": space, "output": answer}) == expected
    assert read({**above, "instruction": "", "input": question, "output": answer}) == expected


def test_the_input_follows_its_instruction_after_a_blank_line() -> None:
    value = {"instruction": "Translate. ", "input": "\nBonjour", "output": "Hello"}
    assert read(value) == (Turn("user", "Translate.\n\nBonjour"), Turn("assistant", "Hello"))


def test_unknown_keys_are_allowed() -> None:
    assert read(
        {"id": 7, "messages": [{"role": "user", "content": "Hi", "name": "Ann"}], "prompt": "Hi"}
    ) == (Turn("user", "Hi"),)


def test_speaker_names_come_from_the_config_and_are_compared_without_case() -> None:
    config = DataConfig(
        train=("unused",), speakers=SpeakersConfig(user=("Ärztin",), assistant=("Patient",))
    )
    value = [
        {"role": "ÄRZTIN", "content": "Guten Tag"},
        {"role": "patient", "content": "Guten Tag"},
    ]
    assert [turn.role for turn in read(value, config)] == ["user", "assistant"]
    assert problems_of([{"role": "user", "content": "Hi"}], config) == [
        ("unknown-speaker", "$[0].role")
    ]


def test_an_unknown_speaker_is_answered_with_the_config_keys() -> None:
    with pytest.raises(ProblemError, match=r'the speaker "narrator" has no role') as caught:
        read_value([{"role": "narrator", "content": "Once"}], CONFIG)
    assert "data.speakers" in str(caught.value.hint)


def test_a_name_with_two_roles_is_a_config_error() -> None:
    config = DataConfig(train=("unused",), speakers=SpeakersConfig(user=("user", "Bot")))
    with pytest.raises(
        ConfigError, match=r'data\.speakers: "bot" is listed for both user and assistant'
    ):
        read_value(["Hi"], config)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, [("unknown-shape", "$")]),
        ("Hello", [("unknown-shape", "$")]),
        (4, [("unknown-shape", "$")]),
        ({}, [("unknown-shape", "$")]),
        ({"question": "Hi", "answers": "Hello"}, [("unknown-shape", "$")]),
        ({"prompt": "Hi", "chosen": "Hello"}, [("unknown-shape", "$")]),
        ({"messages": "Hello"}, [("unknown-shape", "$.messages")]),
        ({"turns": None}, [("unknown-shape", "$.turns")]),
        ([], [("empty-dialogue", "$")]),
        ({"messages": []}, [("empty-dialogue", "$.messages")]),
        ({"prompt": [], "completion": "Hi"}, [("empty-dialogue", "$.prompt")]),
        ([["Hi", "Hello"], ["Bye"]], [("array-of-dialogues", "$")]),
        (
            [{"turns": ["Hi"]}, {"prompt": "Hi", "completion": "Hello"}],
            [("array-of-dialogues", "$")],
        ),
        (
            ["Hi", 4, None, ["Hello"]],
            [("not-a-turn", "$[1]"), ("not-a-turn", "$[2]"), ("not-a-turn", "$[3]")],
        ),
        (["Hi", {"role": "user", "content": "Hello"}], [("mixed-turns", "$[0]")]),
        (
            ["Hi", {"role": "bot", "content": "Hello"}, "Bye", {"role": "user", "content": "Bye"}],
            [("mixed-turns", "$[2]")],
        ),
        (
            {"context": ["Hi", {"role": "bot", "content": "Hello"}], "response": "Bye"},
            [("mixed-turns", "$.context[0]")],
        ),
        ({"prompt": ["Hi"], "completion": "Hello"}, [("missing-key", "$.prompt[0]")]),
        ([{"content": "Hi"}], [("missing-key", "$[0]")]),
        ([{"role": "user", "contnet": "Hi"}], [("missing-key", "$[0]")]),
        ([{}], [("missing-key", "$[0]"), ("missing-key", "$[0]")]),
        (["Hi", "", " \n"], [("empty-utterance", "$[1]"), ("empty-utterance", "$[2]")]),
        ({"prompt": " ", "completion": "Hello"}, [("empty-utterance", "$.prompt")]),
        (
            {"instruction": "", "input": "", "output": "Hello"},
            [("empty-utterance", "$.instruction")],
        ),
        ({"instruction": "Hi", "input": 3, "output": "Hello"}, [("text-not-string", "$.input")]),
        (
            {"instruction": 3, "input": "x", "output": "Hello"},
            [("text-not-string", "$.instruction")],
        ),
        (
            {"conversations": [{"from": "gpt", "value": None}]},
            [("text-not-string", "$.conversations[0].value")],
        ),
        (
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": 3},
                        {"type": "image_url", "text": "Hi"},
                        {"type": "text"},
                        {"inlineData": "x"},
                        {"text": "Hm", "thought": True},
                        7,
                    ],
                }
            ],
            [
                ("text-not-string", "$[0].content[0].text"),
                *(("part-not-text", f"$[0].content[{index}]") for index in range(1, 5)),
                ("text-not-string", "$[0].content[5]"),
            ],
        ),
        ([["Hi", None]], [("text-not-string", "$[0][1]")]),
        (
            {"messages": [["Hi", "Hello"], ["Bye"]]},
            [("not-a-turn", "$.messages[0]"), ("not-a-turn", "$.messages[1]")],
        ),
        ({"messages": '["a'}, [("truncated-json", "$.messages")]),
        ({"messages": "[INST] a"}, [("unknown-shape", "$.messages")]),
        ({"messages": '[{"a": 1, "a": 2}]'}, [("duplicate-key", "$.messages")]),
        ('["\\ud800"]', [("lone-surrogate", "$")]),
        ({"data": "Hello"}, [("unknown-shape", "$")]),
        ({"data": [3]}, [("unknown-shape", "$")]),
        (
            {"system": "a", "system_prompt": "b", "turns": ["Hi", "Hello"]},
            [("system-not-first", "$.system_prompt")],
        ),
        (
            [{"message": {"role": "user", "content": "Hi", "train": True}, "weight": 0}],
            [("train-conflict", "$[0]")],
        ),
        (
            {"conversations": [{"from": "gpt", "value": "Hi"}], "system": 3},
            [("text-not-string", "$.system")],
        ),
        ([{"role": None, "content": "Hi"}], [("unknown-speaker", "$[0].role")]),
        ([{"role": "tool", "content": "Hi"}], [("tool-call", "$[0].content")]),
        (
            [{"role": "user", "content": "Hi"}, {"role": "system", "content": "Be kind"}],
            [("system-not-first", "$[1].content")],
        ),
        (
            {"system": "Be kind", "messages": [{"role": "system", "content": "Be brief"}]},
            [("system-not-first", "$.messages[0].content")],
        ),
        (
            {"prompt": "Hi", "completion": [{"role": "system", "content": "Be brief"}]},
            [("system-not-first", "$.completion[0].content")],
        ),
        ([{"role": "user", "content": "Hi", "train": "false"}], [("train-value", "$[0].train")]),
        ([{"role": "user", "content": "Hi", "mask": 1}], [("train-key", "$[0].mask")]),
        ({"turns": ["Hi", "Hello"], "weight": 0.5}, [("train-value", "$.weight")]),
        (
            {"prompt": "Hi", "completion": "Hello", "loss_mask": [0, 1]},
            [("train-key", "$.loss_mask")],
        ),
        (
            {"instruction": "Hi", "output": "Hello", "history": [["a", "b"], ["c"]]},
            [("history", "$.history[1]")],
        ),
        (
            {"instruction": "Hi", "output": "Hello", "history": {"a": "b"}},
            [("history", "$.history")],
        ),
        (
            {"prompt": "Hi", "completion": "Hello", "history": "a, then b"},
            [("history", "$.history")],
        ),
        (
            {"prompt": "Hi", "completion": "Hello", "history": [["a", None]]},
            [("text-not-string", "$.history[0][1]")],
        ),
        (
            {"messages": [{"role": "user", "content": "Hi"}], "history": [["a", "b"]]},
            [("history", "$.history")],
        ),
        ({"turns": ["Hi"], "history": {"a": "b"}}, [("history", "$.history")]),
    ],
)
def test_a_value_that_is_not_a_dialogue_is_refused_by_code_and_path(
    value: Any, expected: list[tuple[str, str]]
) -> None:
    assert problems_of(value) == expected


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "null"),
        (3, "a number"),
        (True, "true"),
        ({}, "an object"),
        ([], "a list"),
    ],
)
def test_the_message_names_the_type_of_a_wrong_text(content: Any, words: str) -> None:
    with pytest.raises(ProblemError, match=f"the text is {words}"):
        read_value([{"role": "user", "content": content}], CONFIG)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.sampled_from(["", "Hi", "user", "system"]),
        lambda v: (
            st.lists(v, max_size=4)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "role",
                        "content",
                        "from",
                        "value",
                        "messages",
                        "turns",
                        "prompt",
                        "completion",
                        "instruction",
                        "input",
                        "output",
                        "system",
                        "train",
                        "weight",
                        "mask",
                        "history",
                        "thinking",
                    ]
                ),
                v,
                max_size=4,
            )
        ),
    )
)
def test_any_value_is_a_dialogue_or_a_problem_whose_path_exists(value: Any) -> None:
    problems: list[Problem] = []
    reading = read_value(value, CONFIG, problems.append)
    assert (reading is None) == bool(problems)
    line = json.dumps({"wrapped": value})
    for problem in problems:
        path = problem.path.replace("$", "$.wrapped", 1)
        assert locate(line.encode(), [path])[path] > line.index(":")
    if reading is not None:
        assert reading.turns
        assert all(turn.text and turn.text == turn.text.strip() for _, turn in reading.turns)
        assert all(turn.role != "system" for _, turn in reading.turns[1:])


@given(DIALOGUES)
def test_the_path_of_a_turn_leads_to_its_text(turns: list[Turn]) -> None:
    line = json.dumps({"messages": [{"role": turn.role, "content": turn.text} for turn in turns]})
    reading = read_value(json.loads(line), CONFIG)
    assert reading is not None
    columns = locate(line.encode(), (path for path, _ in reading.turns))
    for path, turn in reading.turns:
        text, _ = json.JSONDecoder().raw_decode(line, columns[path] - 1)
        assert text == turn.text


@pytest.mark.parametrize(
    ("value", "shape"),
    [
        (["Hi"], "list of texts"),
        ([{"role": "user", "content": "Hi"}], "list of turns"),
        ({"messages": [], "prompt": "", "completion": ""}, "messages"),
        ({"instruction": "", "output": ""}, "instruction + output"),
        ({"instruction": ""}, None),
        ("Hi", None),
    ],
)
def test_the_keys_of_a_line_decide_its_shape(value: Any, shape: str | None) -> None:
    assert shape_of(value) == shape
    assert shape is None or shape.startswith("list") or shape in SHAPES


def unread(value: Any) -> list[tuple[str, str]]:
    reading = read_value(value, CONFIG)
    assert reading is not None
    return [(path, key) for path, key, _ in reading.unread]


def test_unread_keys_are_those_that_could_be_changed_without_changing_the_dialogue() -> None:
    value = {
        "id": 1,
        "prompt": "unread beside messages",
        "system": "read",
        "history": [],
        "input": "unread beside messages",
        "messages": [
            {
                "role": "user",
                "content": "Hi",
                "name": "Ann",
                "thinking": "unread beside a user's text",
            },
            {
                "role": "assistant",
                "content": "Hello",
                "text": "the second text",
                "from": "Bob",
                "thinking": None,
            },
        ],
    }
    assert unread(value) == [
        ("$.id", "id"),
        ("$.prompt", "prompt"),
        ("$.history", "history"),
        ("$.input", "input"),
        ("$.messages[0].name", "name"),
        ("$.messages[0].thinking", "thinking"),
        ("$.messages[1].text", "text"),
        ("$.messages[1].from", "from"),
    ]
    task = {"instruction": "a", "input": "b", "output": "c", "history": [], "thinking": ""}
    assert unread(task) == []
    reply = {"prompt": "a", "completion": [{"role": "bot", "text": "b"}], "thinking": True}
    assert unread(reply) == [("$.thinking", "thinking")]
    assert unread([{"from": "human", "value": "Hi", "id": 3}]) == [("$[0].id", "id")]
    assert unread(["Hi"]) == []


@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=4), st.none() | TEXTS, SPACE)
def test_a_history_is_the_turns_before(
    pairs: list[tuple[str, str]], system: str | None, space: str
) -> None:
    said = [text for pair in pairs for text in pair]
    expected = ((Turn("system", system),) if system else ()) + alternating([*said, "And?", "So."])
    history = [[question + space, space + answer] for question, answer in pairs]
    above = {"system": system, "history": history}
    assert read({**above, "instruction": "And?", "input": "", "output": "So."}) == expected
    assert read({"output": "So.", "instruction": "And?", **above}) == expected
    assert read({**above, "prompt": "And?", "completion": "So."}) == expected
    if not system:
        prompt = [{"role": "user", "content": "And?"}]
        assert read({**above, "prompt": prompt, "completion": "So."}) == expected


@pytest.mark.parametrize("nothing", [None, [], ""])
def test_an_empty_history_is_none(nothing: Any) -> None:
    assert read({"instruction": "Hi", "output": "Hello", "history": nothing}) == alternating(
        ["Hi", "Hello"]
    )
    assert read({"turns": ["Hi", "Hello"], "history": nothing}) == alternating(["Hi", "Hello"])
