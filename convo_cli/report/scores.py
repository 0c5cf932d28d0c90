"""Scores of a run beside their floors: tables, and a verdict that considers the intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from convo_cli.metrics.metric_table import METRICS
from convo_cli.report.drawing.pictures import FLOOR_LABELS
from convo_cli.report.page_tables import Table, bounded
from convo_cli.report.reading.gathering import Gathered
from convo_cli.report.reading.run_log import Evaluation
from convo_cli.report.shown import number
from convo_cli.report.thinning import spread

_MAX_EVALUATIONS = 16
_MAX_COLUMNS = 3
_TELLING = ("f1", "stop-rate")
"""Metrics that are shown beside the one that chooses the best checkpoint."""


def score_table(evaluation: Evaluation, what: str) -> Table | None:
    """Return the scores of one evaluation's replies; ``what`` names it, such as "step 300"."""
    if not evaluation.metrics:
        return None
    floors = [name for name in FLOOR_LABELS if name in evaluation.floors]
    has_intervals = bool(evaluation.intervals)
    ordered = sorted(evaluation.metrics, key=place_of)
    head = ["score", "value", *(["verdict"] if floors else ())]
    head += ["95 % interval"] if has_intervals else []
    head += [FLOOR_LABELS[name] for name in floors]
    head += ["real"] if evaluation.real_scores else []
    rows = [
        [
            name,
            number(evaluation.metrics[name], 3),
            *([verdict(evaluation, name)] if floors else ()),
            *([interval_text(evaluation.intervals.get(name))] if has_intervals else ()),
            *(number(evaluation.floors[floor].get(name), 3) for floor in floors),
            *([number(evaluation.real_scores.get(name), 3)] if evaluation.real_scores else ()),
        ]
        for name in ordered
    ]
    note = (
        "The floors are trivial replies to the same turns: constant is the most frequent training "
        "reply, echo the user's turn, random a random training reply. A score beats a floor if its "
        "whole interval is better. Scores without a verdict are best at the value of the real "
        "replies."
        if floors
        else "These records have no floors, so compare the scores only with each other."
    )
    numeric = frozenset(range(1, len(head))) - ({2} if floors else set())
    return Table(f"Scores of the replies at {what}", head, bounded(rows), numeric, note)


def place_of(name: str) -> int:
    """Return the place of a metric in the table of all metrics."""
    return list(METRICS).index(name) if name in METRICS else len(METRICS)


def verdict(evaluation: Evaluation, name: str) -> str:
    """Return in a few words which floors are outside a score's interval, on its worse side.

    An en dash if neither direction is better, or the score has no floor.
    """
    metric = METRICS.get(name)
    values = {floor: scores.get(name) for floor, scores in evaluation.floors.items()}
    known = {floor: value for floor, value in values.items() if value is not None}
    if metric is None or metric.is_higher_better is None or not known:
        return "–"
    score = evaluation.metrics[name]
    if score == (metric.highest if metric.is_higher_better else 0):
        return "the best possible value"
    low, high = evaluation.intervals.get(name, (score, score))
    reached = [
        FLOOR_LABELS.get(floor, floor)
        for floor, value in known.items()
        if (value >= low if metric.is_higher_better else value <= high)
    ]
    if len(reached) == len(known):
        return "beats no floor"
    return f"does not beat {', '.join(reached)}" if reached else "beats every floor"


def interval_text(bounds: tuple[float, float] | None) -> str:
    """Return the bounds of an interval; an en dash without one."""
    return "–" if bounds is None else f"{number(bounds[0], 3)} to {number(bounds[1], 3)}"


def evaluation_table(run: Gathered) -> Table | None:
    """Return a few evaluations: first, last, the best ones, and others evenly spread."""
    evaluations = run.log.evaluations
    if not evaluations:
        return None
    kept = spread(list(evaluations), _MAX_EVALUATIONS, _best_steps(run))
    names = _columns(evaluations[kept[-1]].metrics, run.metric)
    has_ends = any(evaluations[step].end_nll is not None for step in kept)
    ends = ("nll of end tokens", "nll of others") if has_ends else ()
    rows = [
        (
            f"{step:,}",
            number(evaluations[step].loss),
            number(evaluations[step].perplexity),
            *(number(evaluations[step].metrics.get(name), 3) for name in names),
            *(
                map(number, (evaluations[step].end_nll, evaluations[step].inner_nll))
                if ends
                else ()
            ),
            ", ".join(_marks(run, step)),
        )
        for step in kept
    ]
    head = ("step", "validation loss", "perplexity", *names, *ends, "note")
    left_out = len(evaluations) - len(kept)
    note = f"{left_out:,} more evaluations are in metrics.jsonl." if left_out else ""
    numeric = frozenset(range(len(head) - 1))
    return Table("Evaluations on the validation data", head, rows, numeric, note)


def _columns(metrics: Mapping[str, float], first: str) -> Sequence[str]:
    return list(dict.fromkeys(name for name in (first, *_TELLING, *metrics) if name in metrics))[
        :_MAX_COLUMNS
    ]


def _best_steps(run: Gathered) -> list[int]:
    return [one.step for one in run.saved if any(kind.startswith("best") for kind in one.kinds)]


def _marks(run: Gathered, step: int) -> Iterator[str]:
    if step == run.best_step:
        yield "lowest loss"
    for one in run.saved:
        if one.step == step:
            yield from (kind for kind in one.kinds if kind == "best by metric")
            yield "on the disk"


def test_table(run: Gathered) -> Table | None:
    """Return the scores on the test data, with their cautions."""
    test = run.test
    if test is None:
        return None
    rows = [
        ("loss, nats per target token", number(test.loss)),
        ("perplexity", number(test.perplexity)),
        *(
            (name, _with_interval(value, test.intervals.get(name)))
            for name, value in test.metrics.items()
        ),
        ("targets", number(test.num_targets)),
        ("replies", number(test.num_replies)),
    ]
    sentences = [test.floors_sentence] if test.floors_sentence else []
    sentences += [f"Caution: {caution}" for caution in test.cautions[:5]]
    notes = " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences)
    caption = f"Scores on the test data, of step {test.step:,}"
    return Table(caption, ("score", "value"), bounded(rows), frozenset({1}), notes)


def _with_interval(value: float, bounds: tuple[float, float] | None) -> str:
    return number(value, 3) + ("" if bounds is None else f" ({interval_text(bounds)})")


def findings(run: Gathered) -> list[tuple[str, str, str]]:
    """Return kind, steps and last message of each kind of finding, in order of first appearance."""
    found: dict[str, list[tuple[int, str]]] = {}
    for step, evaluation in run.log.evaluations.items():
        for kind, message in evaluation.findings:
            found.setdefault(kind, []).append((step, message))
    rows = []
    for kind, seen in list(found.items())[:12]:
        first, (last, message) = seen[0][0], seen[-1]
        when = f"at step {first:,}"
        if last != first:
            when = f"at {len(seen):,} evaluations, first at step {first:,}, last at step {last:,}"
        rows.append((kind, when, message))
    return rows
