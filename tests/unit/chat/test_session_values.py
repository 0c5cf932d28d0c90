"""Sampling settings that the user changes by text."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from convo_cli.chat.session import ChatSession
from convo_cli.chat.session_values import KEYS, SAMPLING_KEYS, range_of
from convo_cli.config.schema import GenerationSettings
from convo_cli.errors import DataError
from tests.unit.chat.fakes import Scripted


def start():
    model: Any = Scripted(SimpleNamespace(max_length=9))
    return ChatSession(model, GenerationSettings())


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("temperature", "0", 0.0),
        ("temperature", " 1e-4 ", 1e-4),
        ("temperature", ".5", 0.5),
        ("top_k", "40", 40),
        ("top_p", "1", 1.0),
        ("min_p", "0.05", 0.05),
        ("repetition_penalty", "1.1", 1.1),
        ("max_new_tokens", "1048576", 2**20),
    ],
)
def test_a_value_is_changed_and_the_others_stay(key, text, value):
    session = start()
    session.set_value(key, text)
    assert session.settings == GenerationSettings(**{key: value})


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("temperature", "11", "temperature: '11' is not a number from 0 to 10"),
        ("temperature", "nan", "temperature: 'nan' is not a number from 0 to 10"),
        ("temperature", "-1", "temperature: '-1' is not a number from 0 to 10"),
        ("temperature", "", "temperature: '' is not a number from 0 to 10"),
        ("top_k", "5.0", "top_k: '5.0' is not a whole number from 0 to 1,000,000"),
        ("top_p", "0", "top_p: '0' is not a number above 0 to 1"),
        ("min_p", "1", "min_p: '1' is not a number from 0 to below 1"),
        ("max_new_tokens", "9" * 99, f"max_new_tokens: '{'9' * 40}' is not a whole number from 1"),
        ("seed", "-1", "seed: '-1' is not a whole number from 0 to"),
        ("seed", str(2**63), f"seed: '{2**63}' is not a whole number from 0 to"),
        ("warmth", "1", "there is no setting 'warmth'"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_range(key, text, message):
    session = start()
    with pytest.raises(DataError) as caught:
        session.set_value(key, text)
    assert caught.value.message.startswith(message)
    assert (session.settings, session.seed) == (GenerationSettings(), None)


def test_a_seed_is_set_and_removed():
    session = start()
    session.set_value("seed", "7")
    assert session.seed == 7
    session.set_value("seed", "none")
    assert session.seed is None


def test_every_setting_of_the_config_can_be_changed():
    assert set(SAMPLING_KEYS) == set(GenerationSettings.model_fields)
    assert [range_of(key).split(" from ")[0] for key in SAMPLING_KEYS][1] == "a whole number"


@hypothesis.given(st.sampled_from(KEYS), st.text(max_size=30) | st.floats().map(str))
def test_any_text_is_a_valid_value_or_refused(key, text):
    session = start()
    try:
        session.set_value(key, text)
    except DataError:
        assert session.settings == GenerationSettings()
    assert GenerationSettings.model_validate(session.settings.model_dump()) == session.settings
    assert session.seed is None or 0 <= session.seed < 2**63
