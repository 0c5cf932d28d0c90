"""Cautions about scores: training data, changed test data, too few replies, a broken model."""

from __future__ import annotations

from collections.abc import Sequence

from convo_cli.events import EvaluationDone
from convo_cli.runs.provenance.data_files import DataFile

FEW_REPLIES = 100
"""Replies below which BLEU and NIST change much with the choice of dialogues."""


def cautions_about(
    result: EvaluationDone,
    files: Sequence[DataFile],
    trained_on: Sequence[DataFile],
    expected: Sequence[DataFile] = (),
) -> tuple[str, ...]:
    """Return a sentence for each caution.

    ``trained_on`` are the training files of the model's run, ``expected`` its test files if these
    were scored.
    """
    known = {file.sha256 for file in trained_on}
    cautions = [
        f"{file.path} is training data of this model (same SHA-256): these scores show what the "
        "model has memorised, not how it answers new dialogues"
        for file in files
        if file.sha256 in known
    ]
    cautions += [
        f"{now.path} changed since the run began (its SHA-256 is not the one in run.json)"
        for now, before in zip(files, expected, strict=False)
        if now.sha256 != before.sha256
    ]
    num_replies = len(result.samples)
    if result.metrics and num_replies < FEW_REPLIES:
        replies = "1 reply" if num_replies == 1 else f"{num_replies} replies"
        cautions.append(
            f"the scores of the replies come from only {replies} and would change much with other "
            f"dialogues; compare models on {FEW_REPLIES} replies or more"
        )
    return (*cautions, *(finding.message for finding in result.findings))
