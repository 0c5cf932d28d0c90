"""Comparison of runs and models: configs that differ, curves, scores, and replies side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from convo_cli.config.schema import DATA_SETS
from convo_cli.report.comparing.members import Member
from convo_cli.report.page_tables import Table, bounded
from convo_cli.report.reading.reply_history import Sample, Turn
from convo_cli.report.reading.run_log import Evaluation, number_of
from convo_cli.report.scores import interval_text
from convo_cli.report.shown import duration, number, short_number
from convo_cli.runs.provenance.changes import as_json, leaves

_MAX_DIALOGUES = 4
_PLACES = ("name", "output_dir", *(f"data.{name}" for name in DATA_SETS))
_COUNTS_AFFECTED = (
    "dialogue.train_on", "dialogue.max_length", "dialogue.long_turns", "evaluation.max_dialogues",
    "data.validation_split",
)  # fmt: skip
"""Keys that decide which targets the validation loss is about."""


@dataclass(frozen=True, slots=True)
class SharedDialogue:
    """A dialogue that several members replied to; None for a member without a reply."""

    history: tuple[Turn, ...]
    reference: str
    replies: tuple[Sample | None, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that a view of a comparison shows."""

    members: tuple[Member, ...]
    differences: tuple[tuple[str, tuple[Any, ...]], ...]
    """Config keys with other values, and the value of each member (None without a config)."""
    cautions: tuple[str, ...]
    dialogues: tuple[SharedDialogue, ...]

    @property
    def metrics(self) -> list[str]:
        """The names of all scores of replies."""
        evaluations = [member.evaluation for member in self.members]
        return list(dict.fromkeys(name for one in evaluations if one for name in one.metrics))


def compare(members: Sequence[Member]) -> Comparison:
    """Compare members that were opened."""
    return Comparison(
        members=tuple(members),
        differences=tuple(_differences(members)),
        cautions=tuple(_cautions(members)),
        dialogues=tuple(_dialogues(members)),
    )


def _differences(members: Sequence[Member]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    configs = [member.run.config if member.run else None for member in members]
    values = [
        {} if config is None else dict(leaves(config.model_dump(mode="json"))) for config in configs
    ]
    for key in dict.fromkeys(key for one in values for key in one if key not in _PLACES):
        known = [as_json(one.get(key)) for one in values if one]
        if len(set(known)) > 1:
            yield key, tuple(one.get(key) for one in values)
    infos = [member.run.info if member.run else None for member in members]
    for name in DATA_SETS:
        files = [None if info is None else getattr(info, name) for info in infos]
        hashes = {tuple(file.sha256 for file in one) for one in files if one is not None}
        if len(hashes) > 1:
            yield (
                f"data.{name}",
                tuple(None if one is None else [file.path for file in one] for one in files),
            )


def _cautions(members: Sequence[Member]) -> Iterator[str]:
    tokenizers = {str(one.contract.get("tokenizer_sha256")) for one in members if one.contract}
    if len(tokenizers) > 1:
        yield (
            "the tokenizers differ, so losses per token do not compare: `convo evaluate` reports "
            "bits per byte on the same data"
        )
    scored = [one for one in members if one.run and one.run.info and one.evaluation]
    sources = {
        tuple(file.sha256 for file in (one.run.info.validation or one.run.info.train))
        for one in scored
        if one.run and one.run.info
    }
    if len(sources) > 1:
        yield "the validation data differs, so losses and scores of replies do not compare"
    different = [key for key, _ in _differences(scored) if key in _COUNTS_AFFECTED]
    if different:
        yield (f"{', '.join(different)} differ, so the validation losses are about other targets")
    without = [one.letter for one in members if one.run is None]
    if without:
        yield (
            f"{', '.join(without)}: no log of a run, so there are no curves, scores and replies; "
            "`convo evaluate` scores models on the same data"
        )


def _dialogues(members: Sequence[Member]) -> list[SharedDialogue]:
    """Return the first dialogues that at least two members replied to."""
    replies = [{sample.dialogue: sample for sample in member.replies()} for member in members]
    keys = dict.fromkeys(key for one in replies for key in one)
    shared = [key for key in keys if sum(key in one for one in replies) > 1]
    return [
        SharedDialogue(key[0], key[1], tuple(one.get(key) for one in replies))
        for key in shared[:_MAX_DIALOGUES]
    ]


def summary_table(comparison: Comparison) -> Table:
    """Return what each member is, how far it was trained, and its losses."""
    rows: list[tuple[str, Callable[[Member], str]]] = [
        ("what", _what),
        ("parameters", lambda one: _short(one.num_parameters)),
        ("template", lambda one: str(one.contract.get("template", "–"))),
        ("steps", lambda one: number(one.run.log.last_step) if one.run else "–"),
        ("tokens trained on", lambda one: _short(one.run.log.tokens_seen) if one.run else "–"),
        ("time", lambda one: duration(one.run.log.seconds) if one.run else "–"),
        ("scores are of step", lambda one: number(one.step)),
        ("validation loss", lambda one: number(one.evaluation.loss if one.evaluation else None)),
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


def as_record(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison for `--json`."""
    return {
        "models": [member_record(one) for one in comparison.members],
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


def _what(member: Member) -> str:
    is_run = member.kind == "run" and member.run is not None
    return f"run, {member.run.state}" if is_run and member.run else member.kind


def _score(value: float | None, bounds: tuple[float, float] | None) -> str:
    has_bounds = bounds is not None and value is not None
    return number(value, 3) + (f" ({interval_text(bounds)})" if has_bounds else "")


def _short(value: int | None) -> str:
    return "–" if value is None else short_number(value)
