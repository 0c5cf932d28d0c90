"""The tables of a comparison: members, scores, and the config keys that differ."""

from __future__ import annotations

from collections.abc import Callable

from convo_cli.report.comparing.comparison import Comparison
from convo_cli.report.comparing.members import Member
from convo_cli.report.page_tables import Table, bounded
from convo_cli.report.scores import interval_text
from convo_cli.report.shown import duration, number, short_number
from convo_cli.runs.provenance.changes import as_json


def summary_table(comparison: Comparison) -> Table:
    """Return kind, size, steps, tokens, time and losses of each member."""
    rows: list[tuple[str, Callable[[Member], str]]] = [
        ("what", _what),
        ("parameters", lambda one: _short(one.num_parameters)),
        ("template", lambda one: str(one.contract.get("template", "–"))),
        ("steps", lambda one: number(one.run.log.last_step) if one.run else "–"),
        ("tokens trained on", lambda one: _short(one.run.log.tokens_seen) if one.run else "–"),
        ("time", lambda one: duration(one.run.log.seconds) if one.run else "–"),
        ("scores are of step", lambda one: number(one.step)),
        ("validation loss", lambda one: number(one.loss)),
        ("perplexity", lambda one: number(one.evaluation.perplexity if one.evaluation else None)),
        ("test loss", lambda one: number(one.run.test.loss if one.run and one.run.test else None)),
    ]
    members = comparison.members
    filled = [(label, *(value_of(one) for one in members)) for label, value_of in rows]
    return Table(
        "What is compared",
        ("", *(one.letter for one in members)),
        [row for row in filled if any(cell != "–" for cell in row[1:])],
        frozenset(range(1, 1 + len(members))),
    )


def score_rows(comparison: Comparison) -> Table | None:
    """Return every score of the replies, with its interval."""
    members = comparison.members
    rows = [
        (
            name,
            *(
                _score(one.evaluation.metrics.get(name), one.evaluation.intervals.get(name))
                if one.evaluation
                else "–"
                for one in members
            ),
        )
        for name in comparison.metrics
    ]
    if not rows:
        return None
    has_intervals = any(one.evaluation and one.evaluation.intervals for one in members)
    caption = "Scores of the replies" + (", with 95 % intervals" if has_intervals else "")
    numeric = frozenset(range(1, 1 + len(members)))
    return Table(caption, ("score", *(one.letter for one in members)), bounded(rows), numeric)


def saved_table(comparison: Comparison) -> Table | None:
    """Return the scores from a file of `convo evaluate`, with their intervals."""
    known = [one for one in comparison.saved if one]
    if not known:
        return None
    names = dict.fromkeys(name for one in known for name in one.scores)
    rows = [
        (
            name,
            *(
                _score(one.scores.get(name), one.intervals.get(name)) if one else "–"
                for one in comparison.saved
            ),
        )
        for name in names
    ]
    files = ", ".join(dict.fromkeys(path for one in known for path, _ in one.data))
    members = comparison.members
    return Table(
        f"Scores of convo evaluate on {files}, with 95 % intervals",
        ("score", *(one.letter for one in members)),
        bounded(rows),
        frozenset(range(1, 1 + len(members))),
    )


def difference_table(comparison: Comparison) -> Table:
    """Return the config keys that differ."""
    members = comparison.members
    has_config = [one.run is not None and one.run.config is not None for one in members]
    rows = [
        (
            key,
            *(
                as_json(value) if known else "–"
                for value, known in zip(values, has_config, strict=True)
            ),
        )
        for key, values in comparison.differences
    ]
    note = "" if rows else "The configs that can be read do not differ."
    head = ("key", *(one.letter for one in members))
    return Table("Config keys that differ", head, bounded(rows, 80), note=note)


def _what(member: Member) -> str:
    is_run = member.kind == "run" and member.run is not None
    return f"run, {member.run.state}" if is_run and member.run else member.kind


def _score(value: float | None, bounds: tuple[float, float] | None) -> str:
    has_bounds = bounds is not None and value is not None
    return number(value, 3) + (f" ({interval_text(bounds)})" if has_bounds else "")


def _short(value: int | None) -> str:
    return "–" if value is None else short_number(value)
