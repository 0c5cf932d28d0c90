"""Windows, by hand: what tests/laws proves for all dialogues, shown for a few."""

from __future__ import annotations

import pytest

from convo_cli.text.windows import RULE, Window, first_that_fits, plan_windows


def test_no_turns_need_no_window():
    assert plan_windows([], 10) == []


def test_the_first_window_is_filled_and_later_ones_keep_half_for_context():
    # 10 tokens: turns 0-3 are fresh at first; then at most 5 fresh tokens and the 5 before them.
    assert plan_windows([2, 3, 2, 3, 2, 3, 2], 10) == [Window(0, 0, 4), Window(2, 4, 6), Window(3, 6, 7)]


def test_a_turn_over_half_of_the_budget_is_a_window_with_what_context_still_fits():
    assert plan_windows([4, 4, 8, 2], 10) == [Window(0, 0, 2), Window(2, 2, 3), Window(2, 3, 4)]


def test_a_budget_without_room_for_anything_is_refused():
    with pytest.raises(ValueError, match="a turn of 1 tokens does not fit into 0"):
        plan_windows([1], 0)


@pytest.mark.parametrize(("budget", "first"), [(0, 3), (1, 2), (4, 2), (5, 1), (9, 0), (-3, 3)])
def test_context_is_counted_back_from_the_end(budget, first):
    assert first_that_fits([4, 4, 1], budget) == first


def test_the_rule_has_a_name_that_a_contract_can_hold():
    """A change to the numbers above is another rule: give it another name, or old runs resume with other windows."""
    assert RULE == "whole-turns-half-context/1"
