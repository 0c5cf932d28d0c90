"""Cautions about scores: few replies, and data that the model was trained on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from convo_cli.evaluation.cautions import FEW_REPLIES, cautions_about
from convo_cli.runs.provenance.data_files import DataFile
from tests.run_events import evaluation, sample

TRAIN, TEST = (
    DataFile(path="a", sha256="1", num_lines=1),
    DataFile(path="b", sha256="2", num_lines=1),
)


@pytest.mark.parametrize(("count", "shown"), [(1, "1 reply"), (FEW_REPLIES - 1, "99 replies")])
def test_scores_of_few_replies_are_named_with_their_number(count: int, shown: str) -> None:
    (caution,) = cautions_about(evaluation(1, (sample("x"),) * count), [TEST], [TRAIN])
    assert caution.startswith(f"the scores of the replies come from only {shown} ")


def test_enough_replies_and_no_replies_need_no_caution() -> None:
    enough = evaluation(1, (sample("x"),) * FEW_REPLIES)
    without = replace(evaluation(1), metrics={})
    assert [cautions_about(scored, [TEST], [TRAIN]) for scored in (enough, without)] == [(), ()]


def test_a_training_file_is_recognised_under_any_name() -> None:
    scored = replace(evaluation(1), metrics={})
    moved = TRAIN.model_copy(update={"path": "other.jsonl"})
    (caution,) = cautions_about(scored, [TEST, moved], [TRAIN])
    assert caution.startswith("other.jsonl is training data of this model")
