"""Thinned curves keep every extreme, and spread choices keep first, last and wanted ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from convo_cli.report.thinning import spread, thinned

CURVES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400).map(
    lambda values: [(float(index), value) for index, value in enumerate(values)]
)


@given(CURVES, st.integers(1, 50))
def test_a_thinned_curve_is_part_of_the_curve_with_its_ends_and_extremes(curve, columns):
    kept = thinned(curve, columns)
    assert len(kept) <= max(2, 4) * columns
    places = [curve.index(point) for point in kept]
    assert places == sorted(set(places))
    assert (kept[0], kept[-1]) == (curve[0], curve[-1])
    values = [value for _, value in curve]
    assert {min(values), max(values)} <= {value for _, value in kept}


@given(CURVES, st.integers(1, 50))
def test_every_column_keeps_its_own_extremes(curve, columns):
    """A spike of one step is seen, however long the run is."""
    kept = thinned(curve, columns)
    end = curve[-1][0] or 1.0
    for column in range(columns):
        inside = [one for one in curve if min(columns - 1, int(one[0] / end * columns)) == column]
        if inside:
            assert max(inside, key=lambda one: one[1])[1] in {y for _, y in kept}


@given(st.sets(st.integers(0, 10_000), min_size=1), st.integers(2, 20), st.lists(st.integers()))
def test_a_spread_choice_has_the_ends_and_is_small(items, count, always):
    ordered = sorted(items)
    chosen = spread(ordered, count, always)
    assert chosen == sorted(set(chosen))
    assert len(chosen) <= count or len(ordered) <= count
    assert {ordered[0], ordered[-1]} <= set(chosen) <= set(ordered)
    if len([one for one in set(always) if one in items]) <= count - 2:
        assert {one for one in always if one in items} <= set(chosen)
