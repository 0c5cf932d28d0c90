"""Training masks on turns and dialogues are obeyed or refused, in every spelling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convo_cli.config.schema import DataConfig
from convo_cli.data.omissions import Omissions
from convo_cli.data.problems import Problem
from convo_cli.data.reader import read_dialogues
from convo_cli.data.repair.lenient_json import dump
from convo_cli.data.shapes.known_keys import TRAIN_KEYS
from convo_cli.data.shapes.turns import read_value

CONFIG = DataConfig(train=("unused",))
USER = {"role": "user", "content": "Hello"}
REPLY = {"role": "assistant", "content": "Hi!"}

NOT_TRAINED = st.sampled_from([False, 0, 0.0, -0.0])
DEFAULT = st.sampled_from([True, 1, 1.0, None])
REFUSED = (
    st.integers().filter(lambda number: number not in (0, 1))
    | st.floats(allow_nan=False, allow_infinity=False).filter(lambda number: number not in (0, 1))
    | st.text()
    | st.sampled_from(["0", "1", "false", "true", ""])
    | st.lists(st.booleans(), max_size=2)
    | st.just({})
)
KEYS = st.sampled_from(TRAIN_KEYS)


def trained(value: Any) -> list[bool]:
    reading = read_value(value, CONFIG)
    assert reading is not None
    assert reading.unread == []
    return [turn.is_trained for _, turn in reading.turns]


def refused(value: Any) -> list[tuple[str, str]]:
    problems: list[Problem] = []
    assert read_value(value, CONFIG, problems.append) is None
    return [(problem.code, problem.path) for problem in problems]


@given(KEYS, NOT_TRAINED)
def test_a_turn_or_a_dialogue_is_not_trained_on(key: str, said: Any) -> None:
    assert trained([USER, REPLY | {key: said}, USER, REPLY]) == [True, False, True, True]
    assert trained({"messages": [USER, REPLY], key: said}) == [False, False]
    assert trained({key: said, "turns": ["Hello", "Hi!"], "system": "Be kind"}) == [
        False,
        False,
        False,
    ]
    assert trained({"prompt": "Hello", "completion": "Hi!", key: said}) == [False, False]
    assert trained({"prompt": [USER], "completion": [REPLY | {key: said}]}) == [True, False]


@given(KEYS, DEFAULT)
def test_one_true_and_null_are_the_default(key: str, said: Any) -> None:
    assert trained([USER | {key: said}, REPLY | {key: said}]) == [True, True]
    assert trained({"messages": [USER, REPLY], key: said}) == [True, True]
    assert trained({"instruction": "Hello", "output": "Hi!", key: said}) == [True, True]


@given(KEYS, REFUSED)
def test_any_other_value_is_refused_and_never_rounded(key: str, said: Any) -> None:
    assert refused([USER, REPLY | {key: said}]) == [("train-value", f"$[1].{key}")]
    assert refused({"messages": [USER, REPLY], key: said}) == [("train-value", f"$.{key}")]


@given(
    st.lists(
        st.tuples(KEYS, NOT_TRAINED | DEFAULT),
        unique_by=lambda pair: pair[0],
        min_size=2,
        max_size=3,
    )
)
def test_two_keys_agree_or_are_refused(said: list[tuple[str, Any]]) -> None:
    meant = {bool(value) for _, value in said if value is not None}
    if len(meant) == 2:
        assert refused([USER, REPLY | dict(said)]) == [("train-conflict", "$[1]")]
    else:
        assert trained([USER, REPLY | dict(said)]) == [True, meant != {False}]


@given(KEYS, KEYS)
def test_a_turn_may_say_less_than_its_dialogue_but_not_more(of_turn: str, of_dialogue: str) -> None:
    turns = [USER, REPLY | {of_turn: 0}, USER, REPLY]
    assert trained({of_dialogue: 1, "messages": turns}) == [True, False, True, True]
    assert trained({of_dialogue: False, "messages": turns}) == [False] * 4
    turns[1] = REPLY | {of_turn: 1}
    assert refused({of_dialogue: 0, "messages": turns}) == [("train-conflict", "$.messages[1]")]


@pytest.mark.parametrize("value", [1, 0, True, [0, 1], "User", {"a": 1}])
@pytest.mark.parametrize(
    "key", ["mask", "masked", "loss_mask", "trainable", "training", "Weight", "trian"]
)
def test_a_name_that_tools_disagree_on_is_refused(key: str, value: Any) -> None:
    assert refused([USER, REPLY | {key: value}]) == [("train-key", f"$[1].{key}")]
    assert refused({"turns": ["Hello", "Hi!"], key: value}) == [("train-key", f"$.{key}")]
    assert trained([USER, REPLY | {key: None}]) == [True, True]


@pytest.mark.parametrize("key", ["used_in_training", "ignore", "is_target"])
@pytest.mark.parametrize("value", [True, False])
def test_a_flag_with_such_a_name_is_refused(key: str, value: bool) -> None:
    assert refused([USER, REPLY | {key: value}]) == [("train-key", f"$[1].{key}")]
    assert refused({"turns": ["Hello", "Hi!"], key: value}) == [("train-key", f"$.{key}")]
    for text in ("alpaca", 3, ["a"]):
        assert read_value([USER, REPLY | {key: text}], CONFIG) is not None


def test_a_dialogue_that_the_data_excludes_is_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    values = [
        ["Hello", "Hi!"],
        {"messages": [USER, REPLY], "weight": 0},
        [USER | {"loss": False}, REPLY | {"train": False}],
        [USER, REPLY | {"weight": 0}, USER, REPLY],
    ]
    path.write_text("".join(dump(value) + "\n" for value in values))
    omissions = [Omissions()]
    dialogues = list(read_dialogues([str(path)], CONFIG, omissions))
    assert [dialogue.line for dialogue in dialogues] == [1, 4]
    assert omissions[0].num_excluded == 2
    (notice,) = omissions[0].notices("a.jsonl", None)
    assert (notice.message, notice.is_warning) == (
        'a.jsonl: left out 2 dialogues marked "train": false',
        False,
    )
