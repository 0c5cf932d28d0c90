"""Laws that hold for every shape of the table; a new shape begins with an entry of `EXAMPLES`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convo_cli.config.schema import DataConfig
from convo_cli.data.checks.suspicions import HEADINGS
from convo_cli.data.checks.validate import validate_files
from convo_cli.data.dialogue import ROLES, Turn
from convo_cli.data.problem_kinds import KINDS
from convo_cli.data.problems import Problem
from convo_cli.data.repair.values import repair_value
from convo_cli.data.shapes.items.turn_keys import LISTS
from convo_cli.data.shapes.known_keys import misspelt
from convo_cli.data.shapes.table import COMMON_LISTS, PAIRS, SHAPES, shape_of
from convo_cli.data.shapes.turns import read_value

CONFIG = DataConfig(train=("unused",))
EARLIER = (Turn("user", "Who is there?"), Turn("assistant", "Ann."))
TALK = (Turn("user", "Hello"), Turn("assistant", "Hi!"))
MESSAGES = [{"role": turn.role, "content": turn.text} for turn in TALK]

EXAMPLES: dict[str, tuple[dict[str, Any], tuple[Turn, ...]]] = {
    "messages": ({"messages": MESSAGES}, TALK),
    "conversations": (
        {"conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi!"}]},
        TALK,
    ),
    "turns": ({"turns": ["Hello", "Hi!"]}, TALK),
    "prompt + completion": (
        {"prompt": "Hello", "completion": "Hi!", "history": [["Who is there?", "Ann."]]},
        (*EARLIER, *TALK),
    ),
    "instruction + output": (
        {
            "instruction": "Greet",
            "input": "me",
            "output": "Hi!",
            "history": [["Who is there?", "Ann."]],
        },
        (*EARLIER, Turn("user", "Greet\n\nme"), Turn("assistant", "Hi!")),
    ),
}
"""A line of each kind of shape with all keys that the shape reads, and its turns."""

for key in COMMON_LISTS + LISTS:
    EXAMPLES.setdefault(key, ({key: MESSAGES}, TALK))
for (question, answer), extras in PAIRS.items():
    beside = {key: f"the {key}" for key in extras}
    asked = "\n\n".join(["Hello", *beside.values()])
    EXAMPLES.setdefault(
        f"{question} + {answer}",
        (
            {question: "Hello", **beside, answer: "Hi!", "history": [["Who is there?", "Ann."]]},
            (*EARLIER, Turn("user", asked), TALK[1]),
        ),
    )

each_shape = pytest.mark.parametrize("name", EXAMPLES)


def test_every_shape_has_an_example() -> None:
    assert EXAMPLES.keys() == SHAPES.keys(), (
        "EXAMPLES and SHAPES in data/shapes/table.py name other shapes"
    )


@each_shape
def test_a_shape_reads_all_its_keys_as_the_turns_of_its_example(name: str) -> None:
    line, turns = EXAMPLES[name]
    shape = SHAPES[name]
    assert set(line) == {*shape.keys, *shape.optional}
    assert shape_of(line) == name
    reading = read_value(line | {"id": 7}, CONFIG)
    assert reading is not None
    assert tuple(turn for _, turn in reading.turns) == turns
    assert [item.key for item in reading.unread] == ["id"]


@each_shape
def test_optional_keys_may_be_missing_or_null_and_required_ones_may_not(name: str) -> None:
    line, _ = EXAMPLES[name]
    shape = SHAPES[name]
    bare = {key: line[key] for key in shape.keys}
    for value in (bare, bare | dict.fromkeys(shape.optional)):
        assert read_value(value, CONFIG) is not None
    for key in shape.keys:
        assert shape_of({other: value for other, value in line.items() if other != key}) != name


@each_shape
def test_a_dialogue_of_any_shape_may_have_a_system_turn_and_a_mask(name: str) -> None:
    line, turns = EXAMPLES[name]
    reading = read_value({"train": False, **line, "system": "Be kind."}, CONFIG)
    assert reading is not None
    assert [turn.text for _, turn in reading.turns] == ["Be kind.", *(turn.text for turn in turns)]
    assert not any(turn.is_trained for _, turn in reading.turns)


@each_shape
def test_every_key_of_a_shape_is_suggested_for_its_misspelling_and_repaired(name: str) -> None:
    line, _ = EXAMPLES[name]
    for key in SHAPES[name].keys:
        assert misspelt(f"{key}x") == key
        renamed = {f"{key}x" if other == key else other: value for other, value in line.items()}
        assert repair_value(renamed, CONFIG) == line


@each_shape
def test_the_texts_of_a_shape_are_repaired(name: str) -> None:
    line, _ = EXAMPLES[name]
    required = {key: line[key] for key in SHAPES[name].keys}
    damaged = json.loads(json.dumps(required).replace("Hi!", "Hi\u200b!"))
    assert damaged != required
    assert repair_value(damaged, CONFIG) == required


@each_shape
def test_lines_that_differ_in_their_texts_are_counted_together_as_they_are_read_one_by_one(
    tmp_path: Path, name: str
) -> None:
    line, _ = EXAMPLES[name]
    words = ["Hi", " Hi", "Hi ", "user", "assistant", "0", "{}", '"', "é"]
    lines = [json.loads(json.dumps(line).replace("Hi!", json.dumps(word)[1:-1])) for word in words]
    lines += [
        {key: value for key, value in one.items() if key not in SHAPES[name].optional}
        for one in lines
    ]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in lines), encoding="utf-8")
    report = validate_files([str(path)], CONFIG).files[0]
    readings = [read_value(one, CONFIG) for one in lines]
    turns = [turn for reading in readings if reading for _, turn in reading.turns]
    assert report.shapes == {name: len(lines)}
    assert (report.num_errors, report.num_turns) == (0, len(turns))
    assert report.num_characters == sum(len(turn.text) for turn in turns)
    assert dict(report.num_turns_by_role) == {
        role: sum(turn.role == role for turn in turns) for role in ROLES
    }


ANY_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@each_shape
@settings(max_examples=10)
@given(data=st.data())
def test_a_shape_reads_any_values_as_a_dialogue_or_as_problems_with_a_code_and_a_path(
    name: str, data: Any
) -> None:
    shape = SHAPES[name]
    line = {key: data.draw(ANY_VALUE) for key in (*shape.keys, *shape.optional)}
    problems: list[Problem] = []
    assert (read_value(line, CONFIG, problems.append) is None) == bool(problems)
    for problem in problems:
        assert problem.code in KINDS
        is_unknown = SHAPES[name].is_common and problem.path == "$"
        assert is_unknown or any(problem.path.startswith(f"$.{key}") for key in line)


@each_shape
def test_a_text_that_is_a_key_of_a_shape_is_a_label_row(name: str) -> None:
    """Such a line is the header of a table whose rows were written as dialogues."""
    assert [key for key in SHAPES[name].keys if key not in HEADINGS] == [], (
        "missing in data/checks/suspicions.py"
    )
