"""Comparison of runs and models: configs that differ, curves, scores, and replies side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from convo_cli.config.schema import DATA_SETS
from convo_cli.report.comparing.members import Member
from convo_cli.report.comparing.saved_scores import SavedScores
from convo_cli.report.reading.reply_history import Sample, Turn
from convo_cli.report.scores import place_of
from convo_cli.report.shown import number
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
    """A dialogue that several members replied to."""

    history: tuple[Turn, ...]
    reference: str
    replies: tuple[Sample | None, ...]
    """The reply of each member; None for a member without one."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that a view of a comparison shows."""

    members: tuple[Member, ...]
    differences: tuple[tuple[str, tuple[Any, ...]], ...]
    """Config keys with other values, and the value of each member (None without a config)."""
    cautions: tuple[str, ...]
    dialogues: tuple[SharedDialogue, ...]
    saved: tuple[SavedScores | None, ...]
    """Scores of each member from a file of `convo evaluate`."""

    @property
    def metrics(self) -> list[str]:
        """The names of all scores of replies, in the order of the table of metrics."""
        evaluations = [member.evaluation for member in self.members]
        names = dict.fromkeys(name for one in evaluations if one for name in one.metrics)
        return sorted(names, key=place_of)

    @property
    def headline(self) -> str:
        """Return which member has the lowest validation loss, in a sentence."""
        losses = sorted((one.loss, one.letter, one) for one in self.members if one.loss is not None)
        if len(losses) < 2:
            return "Fewer than two models have a validation loss."
        loss, letter, best = losses[0]
        if number(loss) == number(losses[-1][0]):
            return f"All have the same validation loss, {number(loss)}."
        others = ", ".join(f"{other} {number(value)}" for value, other, _ in losses[1:])
        where = f"at step {best.step:,}"
        return f"{letter} has the lowest validation loss, {number(loss)} {where}; {others}."


def compare(
    members: Sequence[Member], saved: Sequence[SavedScores | None] | None = None
) -> Comparison:
    """Compare members that were opened, with their ``saved`` scores if there are any."""
    saved = tuple(saved or [None] * len(members))
    return Comparison(
        members=tuple(members),
        differences=tuple(_differences(members)),
        cautions=tuple(_cautions(members, saved)),
        dialogues=tuple(_dialogues(members)),
        saved=saved,
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
    weights = [None if info is None else info.config.data.weights for info in infos]
    mixtures = {one for one in weights if one is not None}
    if len(mixtures) > 1 and any(set(one) != {1} for one in mixtures):
        yield "weights of data.train", tuple(one and list(one) for one in weights)


def _cautions(members: Sequence[Member], saved: Sequence[SavedScores | None]) -> Iterator[str]:
    tokenizers = {str(one.contract.get("tokenizer_sha256")) for one in members if one.contract}
    if len(tokenizers) > 1:
        yield (
            "the tokenizers differ, so losses per token cannot be compared; `convo evaluate` "
            "reports bits per byte on the same data"
        )
    scored = [one for one in members if one.run and one.run.info and one.evaluation]
    sources = {
        tuple(file.sha256 for file in (one.run.info.validation or one.run.info.train))
        for one in scored
        if one.run and one.run.info
    }
    if len(sources) > 1:
        yield "the validation data differs, so losses and scores of replies cannot be compared"
    different = [key for key, _ in _differences(scored) if key in _COUNTS_AFFECTED]
    if different:
        differ = "differs" if len(different) == 1 else "differ"
        yield f"{', '.join(different)} {differ}, so the validation losses have different targets"
    if len({tuple(digest for _, digest in one.data) for one in saved if one}) > 1:
        yield "the scores of convo evaluate are from different data, so they cannot be compared"
    without = [
        one.letter
        for one, scores in zip(members, saved, strict=True)
        if one.run is None and scores is None
    ]
    if without:
        yield (
            f"{', '.join(without)}: no log of a run, so there are no curves, scores or replies; "
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
