"""Numbers, tables and counts of `convo evaluate`."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from convo_cli.cli.views.evaluation.evaluation_view import _counted
from convo_cli.cli.views.evaluation.score_tables import _cells, _number, _table


@pytest.mark.parametrize(
    ("counts", "shown"),
    [
        ((1, 1, 1), ["1 target", "1 reply", "1 split dialogue"]),
        ((5095, 4, 2), ["5,095 targets", "4 replies", "2 split dialogues"]),
        ((2, 0, 0), ["2 targets", "0 replies"]),
    ],
)
def test_a_count_of_one_has_a_noun_in_the_singular(counts, shown):
    names = ("targets", "replies", "split dialogues")
    assert _counted(dict(zip(names, counts, strict=True))) == shown


def test_large_scores_are_readable():
    values = (8066.4, 999_999.0, 2.42e6, 786.4, 0.05, None)
    assert [_number(value) for value in values] == [
        "8,070", "1,000,000", "2.42e+06", "786", "0.050", "-",
    ]  # fmt: skip
    bounds = [(0.0, 1_193_882.0), (780.0, 804.0), (4.3, 4.9)]
    assert _cells([226_000.0, 786.4, 4.62], bounds) == ["226,000 ±600,000", "786 ±12", "4.62 ±0.3"]


def test_no_name_is_cut_in_a_narrow_terminal():
    screen = io.StringIO()
    table = _table("replies", ["A", "B"], [("distinct-1", ["0.5 ±0.1"] * 2)], ["best floor"])
    Console(file=screen, width=30).print(table)
    assert "…" not in screen.getvalue()
