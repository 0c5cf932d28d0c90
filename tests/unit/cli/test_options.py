from __future__ import annotations

import math

import pytest
import typer

from convo_cli.cli.options import complete_load, within


@pytest.mark.parametrize("value", [None, 0, 0.5, 1])
def test_a_number_within_the_limits_is_returned(value: float | None) -> None:
    assert within(0, 1)(value) == value


@pytest.mark.parametrize("value", [-1, 2, math.inf, math.nan])
def test_a_number_outside_the_limits_is_refused_and_so_is_nan(value: float) -> None:
    with pytest.raises(typer.BadParameter, match="is not between 0 and 1"):
        within(0, 1)(value)


@pytest.mark.parametrize("value", [-1, math.nan])
def test_a_number_below_the_only_limit_is_refused(value: float) -> None:
    with pytest.raises(typer.BadParameter, match="is not at least 0"):
        within(0)(value)


def test_the_values_of_load_are_completed_with_their_meaning() -> None:
    assert [name for name, _ in complete_load("")] == ["last", "loss", "metric"]
    assert list(complete_load("lo")) == [("loss", "the best by validation loss")]
