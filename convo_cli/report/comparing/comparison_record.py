"""A comparison as an object for `--json`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from convo_cli.report.comparing.comparison import Comparison
from convo_cli.report.comparing.members import Member
from convo_cli.report.reading.run_log import Evaluation, number_of


def as_record(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison for `--json`."""
    return {
        "models": [
            member_record(one) | {"evaluated": None if saved is None else asdict(saved)}
            for one, saved in zip(comparison.members, comparison.saved, strict=True)
        ],
        "differences": [
            {"key": key, "values": list(values)} for key, values in comparison.differences
        ],
        "cautions": list(comparison.cautions),
        "dialogues": [
            {
                "history": [{"role": turn.role, "content": turn.content} for turn in one.history],
                "reference": one.reference,
                "replies": [None if reply is None else reply.reply for reply in one.replies],
            }
            for one in comparison.dialogues
        ],
    }


def member_record(member: Member) -> dict[str, Any]:
    """Return one run or model for `--json`."""
    run, evaluation = member.run, member.evaluation
    return {
        "source": member.source,
        "kind": member.kind,
        "state": run.state if run and member.kind == "run" else None,
        "step": None if run is None else run.log.last_step,
        "max_steps": None if run is None else run.max_steps,
        "tokens_seen": None if run is None else run.log.tokens_seen,
        "seconds": None if run is None else run.log.seconds,
        "num_parameters": member.num_parameters,
        "evaluation": None if evaluation is None else _evaluation_record(evaluation),
        "test_loss": number_of(run.test.loss) if run and run.test else None,
        "missing": list(member.missing),
        "problems": [] if run is None else list(run.problems),
    }


def _evaluation_record(evaluation: Evaluation) -> dict[str, Any]:
    values = asdict(evaluation)
    names = (
        "step", "loss", "perplexity", "metrics", "real_scores", "intervals", "floors", "end_nll",
        "inner_nll",
    )  # fmt: skip
    findings = [{"kind": kind, "message": message} for kind, message in values["findings"]]
    return {name: values[name] for name in names} | {"findings": findings}
