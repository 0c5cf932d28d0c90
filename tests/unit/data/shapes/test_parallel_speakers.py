"""Speakers in a list beside a list of texts: alternating ones are read, all others are refused."""

from __future__ import annotations

import pytest

from convo_cli.config.schema import DataConfig
from convo_cli.data.shapes.turns import read_value

TEXTS = ["Is it an oak?", "It is.", "Old, too.", "How old?"]


def read(line, **config):
    problems = []
    reading = read_value(line, DataConfig(train=("a.jsonl",), **config), problems.append)
    roles = None if reading is None else [turn.role for _, turn in reading.turns]
    return roles, problems


@pytest.mark.parametrize("key", ["speakers", "roles"])
@pytest.mark.parametrize("names", [["Ann", "Ben"] * 2, ["user", "assistant"] * 2])
def test_speakers_that_alternate_as_the_texts_do_are_read(key, names):
    assert read({"dialogue": TEXTS, key: names}) == (["user", "assistant"] * 2, [])


def test_the_configured_first_speaker_decides_whether_roles_agree():
    line = {"turns": TEXTS, "speakers": ["assistant", "user"] * 2}
    assert read(line, first_speaker="assistant") == (["assistant", "user"] * 2, [])
    assert read(line)[0] is None


@pytest.mark.parametrize(
    "names",
    [
        ["Ann", "Ben", "Ben", "Ann"],
        ["Ann", "Ann", "Ann", "Ann"],
        ["Ann", "Ben", "Cid", "Ben"],
        ["assistant", "user"] * 2,
        ["user", "Ben", "user", "user"],
    ],
)
def test_other_speakers_are_refused_with_a_command(names):
    roles, [problem] = read({"dialogue": TEXTS, "speakers": names})
    assert roles is None
    assert (problem.code, problem.path) == ("other-format", "$.speakers")
    assert "jq -c" in problem.advice.hint("a.jsonl")


def test_another_number_of_speakers_is_refused():
    roles, [problem] = read({"dialogue": TEXTS, "speakers": ["Ann", "Ben"]})
    assert roles is None
    assert problem.message == 'the line has 4 texts, but 2 speakers under "speakers"'


def test_names_beside_turns_with_roles_are_another_key_that_is_not_read():
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    roles, problems = read({"messages": turns, "speakers": ["Ann", "Ben", "Cid"]})
    assert (roles, problems) == (["user", "assistant"], [])
