"""The comparison of answers: what its errors advise."""

from __future__ import annotations

import math

import pytest

from convo_cli.export.proof.answer_comparison import DifferenceError, Rules, compare_perplexities
from convo_cli.export.proof.checkpoint_answers import Targets

TARGETS = Targets("validation", [([1, 2], 1)], [1.0])


@pytest.mark.parametrize(("is_exact", "factor"), [(True, 1.1), (False, 1.3)])
def test_weights_that_are_too_coarse_name_a_finer_type_and_other_faults_are_defects(
    is_exact, factor
):
    found = [[1.0 + math.log(factor)]]
    with pytest.raises(DifferenceError, match="the perplexity of 1 target is") as caught:
        compare_perplexities(TARGETS, found, Rules("x", None, is_exact))
    hint = caught.value.hint or ""
    assert ("--dtype fp32" in hint) == (not is_exact)
