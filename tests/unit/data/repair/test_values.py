"""Repairs of values end, and repairing them again changes nothing."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from convo_cli.config.schema import DataConfig
from convo_cli.data.checks.suspicious_text import suspicious_spots
from convo_cli.data.repair.lenient_json import dump
from convo_cli.data.repair.values import MAX_ROUNDS, repair_text, repair_value
from tests.faulty_files import INNOCENT_TEXTS

CONFIG = DataConfig(train=("unused",))


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "role",
                        "content",
                        "messages",
                        "turns",
                        "train",
                        "text",
                        "references",
                        "prompt",
                        "completion",
                        "input",
                        "system",
                        "sytem",
                        "",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=20,
    )
)
def test_repairing_any_value_ends_and_a_second_time_changes_nothing(value: Any) -> None:
    repaired = repair_value(value, CONFIG)
    assert dump(repair_value(repaired, CONFIG)) == dump(repaired)


# Short ones, because hypothesis prints its examples.
INNOCENT = sorted(text for text in INNOCENT_TEXTS.values() if len(text) < 1000)


@given(st.lists(st.sampled_from(INNOCENT) | st.text(max_size=4), max_size=4).map(" ".join))
def test_a_repaired_text_is_at_rest_and_an_innocent_one_stays(text: str) -> None:
    repaired = repair_text(text)
    assert repair_text(repaired) == repaired
    if not list(suspicious_spots(text)):
        assert repaired == text


def test_entities_hidden_in_entities_end_after_some_rounds() -> None:
    assert repair_text("a &amp;amp;lt; b") == "a < b"
    hidden = "&" + "amp;" * (MAX_ROUNDS + 5)
    assert repair_text(hidden) == hidden
