"""Windows of a few dialogues, computed by hand; tests/laws proves them for all dialogues."""

from __future__ import annotations

import pytest

from convo_cli.text.windows import RULE, Part, Window, cut_turn, first_that_fits, next_window
from tests.windows import plan


def test_no_turns_need_no_window():
    assert plan([], 10) == []


def test_the_first_window_is_filled_and_later_ones_keep_half_for_context():
    # 10 tokens: turns 0-3 are fresh at first; then at most 5 fresh tokens and the 5 before them.
    assert plan([2, 3, 2, 3, 2, 3, 2], 10) == [Window(0, 0, 4), Window(2, 4, 6), Window(3, 6, 7)]


def test_a_turn_over_half_of_the_budget_is_a_window_with_what_context_still_fits():
    assert plan([4, 4, 8, 2], 10) == [Window(0, 0, 2), Window(2, 2, 3), Window(2, 3, 4)]


def test_a_turn_longer_than_the_budget_is_planned_alone():
    assert next_window([5, 30, 5], 0, 20) == Window(0, 0, 1)
    assert next_window([5, 30, 5], 1, 20) == Window(1, 1, 2)


@pytest.mark.parametrize(("budget", "first"), [(0, 3), (1, 2), (4, 2), (5, 1), (9, 0), (-3, 3)])
def test_context_is_counted_back_from_the_end(budget, first):
    assert first_that_fits([4, 4, 1], budget) == first


def test_a_long_turn_at_the_start_fills_a_window_and_later_ones_repeat_what_is_before():
    assert cut_turn(0, 25, 10, 4) == [
        Part(0, 0, 10),
        Part(6, 10, 16),
        Part(12, 16, 22),
        Part(18, 22, 25),
    ]


def test_a_long_turn_later_on_has_context_from_its_first_part_on():
    assert cut_turn(2, 14, 10, 4) == [Part(0, 2, 10), Part(6, 10, 14)]
    assert cut_turn(7, 19, 10, 4) == [Part(3, 7, 13), Part(9, 13, 19)]


def test_a_turn_that_fits_with_a_token_of_context_is_one_part_with_all_that_fits():
    assert cut_turn(50, 57, 10, 4) == [Part(47, 50, 57)]
    assert cut_turn(2, 9, 10, 4) == [Part(0, 2, 9)]


def test_the_rule_has_a_name_that_a_contract_can_hold():
    """If the numbers above change, the rule needs a new name: old runs have the old windows."""
    assert RULE == "rendered-whole-turns-half-context/2"
