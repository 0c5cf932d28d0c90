"""The counts below the scores of `convo evaluate`."""

from __future__ import annotations

import pytest

from convo_cli.cli.views.evaluation.evaluation_view import _counted


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
