from __future__ import annotations

import math

import pytest
import typer

from convo_cli.cli.options import bytes_in, complete_load, within


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


@pytest.mark.parametrize(
    ("given", "num_bytes"),
    [
        ("2GB", 2 * 10**9), ("2gb", 2 * 10**9), (" 1 GiB ", 2**30), ("1.5MB", 1_500_000),
        ("5000000B", 5 * 10**6), ("1TiB", 2**40), (None, None),
    ],
)  # fmt: skip
def test_a_size_becomes_bytes(given, num_bytes):
    assert bytes_in(given) == (None if num_bytes is None else str(num_bytes))


@pytest.mark.parametrize(
    "given", ["", "2", "GB", "2 G", "-1GB", "1e9B", "999kB", "0GB", "٢GB", "9" * 99]
)
def test_no_size_is_refused(given):
    with pytest.raises(typer.BadParameter):
        bytes_in(given)
