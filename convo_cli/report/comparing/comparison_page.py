"""The page of a comparison, built like that of one run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from convo_cli.report.comparing.comparison import Comparison
from convo_cli.report.comparing.comparison_tables import (
    difference_table,
    saved_table,
    score_rows,
    summary_table,
)
from convo_cli.report.comparing.members import Member
from convo_cli.report.drawing.charts import Chart, Line, line_chart
from convo_cli.report.page import write_page
from convo_cli.report.thinning import Points
from convo_cli.runs.logs.curves import smoothed

_MAX_SCORES = 6
_COLUMNS = 120


def write_comparison(comparison: Comparison, out: Path) -> None:
    """Write the page to ``out``; DiskError if that is not possible."""
    write_page(
        out,
        "comparison.html",
        {
            "comparison": comparison,
            "summary": summary_table(comparison),
            "scores": score_rows(comparison),
            "saved": saved_table(comparison),
            "differences": difference_table(comparison),
            "charts": list(comparison_charts(comparison)),
        },
    )


def comparison_charts(comparison: Comparison) -> Iterator[Chart]:
    """Yield the losses over steps and over tokens, and the first scores over steps."""
    members = comparison.members
    drawn = (
        ("train-steps", "Training loss over steps, smoothed", "step", _training, False),
        ("train-tokens", "Training loss over tokens, smoothed", "tokens", _training, True),
        ("valid-steps", "Validation loss over steps", "step", _validation, False),
        ("valid-tokens", "Validation loss over tokens", "tokens", _validation, True),
    )
    for key, name, x_name, curve_of, is_over_tokens in drawn:
        lines = _lines(members, list(map(curve_of, members)), has_dots=curve_of is _validation)
        if is_over_tokens:
            lines = [
                _over_tokens(line, member) for line, member in zip(lines, members, strict=True)
            ]
        if chart := line_chart(key, name, lines, x_name=x_name, columns=_COLUMNS):
            yield chart
    for number, name in enumerate(comparison.metrics[:_MAX_SCORES]):
        scores = [one.run.log.scores(name) if one.run else [] for one in members]
        lines = _lines(members, scores, has_dots=True)
        title = f"{name} of the replies"
        if chart := line_chart(f"score{number}", title, lines, from_zero=True, columns=_COLUMNS):
            yield chart


def _lines(members: Sequence[Member], curves: Sequence[Points], *, has_dots: bool) -> list[Line]:
    return [
        Line(member.letter, points, f"m{index}", has_dots=has_dots)
        for index, (member, points) in enumerate(zip(members, curves, strict=True))
    ]


def _training(member: Member) -> Points:
    points = [] if member.run is None else member.run.log.curve("loss")
    means = smoothed([loss for _, loss in points]) if points else []
    return [(step, mean) for (step, _), mean in zip(points, means, strict=True)]


def _validation(member: Member) -> Points:
    return [] if member.run is None else member.run.log.evaluated("loss")


def _over_tokens(line: Line, member: Member) -> Line:
    tokens = dict(member.run.log.curve("tokens_seen")) if member.run else {}
    points = [(tokens[step], value) for step, value in line.points if step in tokens]
    return Line(line.label, points, line.style, has_dots=line.has_dots)
