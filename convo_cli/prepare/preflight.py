"""Checks of encoded data before step 1: targets, their end tokens, and turns that fit a window.

All problems of the data are collected and reported together. The tables of `train` and
`validate-data` show the counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from convo_cli.config.schema import LongTurns, TrainOn
from convo_cli.data.checks.problem_tally import DataProblemsError, ProblemGroup, ProblemTally
from convo_cli.data.checks.report import Spread, spread
from convo_cli.data.dialogue import Dialogue, has_target, only_calls
from convo_cli.data.fingerprint import is_among
from convo_cli.data.problems import LongTurn, Problem, at_line, no_target
from convo_cli.events import Emit, Notice, TokenCounts
from convo_cli.tokens.store import ASSISTANT_TARGET, USER_TARGET, TokenStore
from convo_cli.tokens.store_columns import blocks_of

SET_NAMES = {"train": "training", "validation": "validation", "test": "test"}
"""The words for the data sets in messages."""
_NAMED = 3  # dialogues that a warning about shared ones names
MAX_LENGTH_LIMIT = 1_048_576  # of dialogue.max_length


class PreflightError(DataProblemsError):
    """The data cannot be trained on.

    ``needed`` is the smallest dialogue.max_length that would fit all turns that are too long; 0 if
    there is none.
    """

    def __init__(self, groups: Sequence[ProblemGroup], needed: int = 0) -> None:
        super().__init__("the data cannot be trained on", groups)
        self.needed = needed


class Refusals(ProblemTally):
    """A tally of problems, and the max_length that would fit all turns."""

    needed = 0
    """The smallest max_length that fits all turns that are too long; 0 if there is none."""

    def __call__(self, problem: Problem) -> None:
        super().__call__(problem)
        if isinstance(problem, LongTurn):
            self.needed = max(self.needed, problem.needed)


def advice_for_long_turns(needed: int, context: int | None, long_turns: LongTurns) -> str:
    """Return the hint for turns that are too long.

    ``context`` is the longest sequence of the model, if known.
    """
    is_split = long_turns == "split"  # then only tokens repeated before every turn can be too long
    instead = "dialogue.long_turns: drop" if is_split else "dialogue.long_turns: split (or drop)"
    if needed > MAX_LENGTH_LIMIT:
        return f"set {instead}"
    fit = "all turns could be split at" if is_split else "all turns would fit into"
    if context is not None and needed > context:
        return (
            f"{fit} a dialogue.max_length of {needed}, but the model reads at most {context}: "
            f"set {instead}"
        )
    reason = "at which all turns can be split" if is_split else "into which all turns fit"
    return f"set dialogue.max_length: {needed}, {reason}, or {instead}"


def find_untrained(
    dialogues: Sequence[Dialogue], part: TokenStore, train_on: TrainOn, stop_ids: Sequence[int]
) -> dict[int, Problem]:
    """Find dialogues without a target, or with a trained reply whose end token is no target.

    The keys are indices of ``dialogues``, which are those of ``part``.
    """
    is_end = np.isin(part.input_ids[:], stop_ids) & (part.targets[:] == ASSISTANT_TARGET)
    before = np.concatenate([[0], np.cumsum(is_end)])
    ends = np.bincount(part.dialogue_of, np.diff(before[part.offsets]), minlength=len(dialogues))
    found: dict[int, Problem] = {}
    for number in np.flatnonzero(part.dialogues["num_tokens"]).tolist():  # the others are left out
        dialogue = dialogues[number]
        if not has_target(dialogue.turns, train_on):
            problem = no_target(train_on, calls_only=only_calls(dialogue.turns))
        elif ends[number] < (expected := _num_trained_replies(dialogue, train_on)):
            trained = f"{ends[number]:.0f} of {expected} replies"
            problem = Problem("end-not-trained", f"the end token is trained on in only {trained}")
        else:
            continue
        found[number] = at_line(problem, dialogue.file, dialogue.line)
    return found


def count_tokens(store: TokenStore, max_length: int) -> TokenCounts:
    """Return the counts for the table."""
    whole = store.dialogues["num_tokens"]
    num_dialogues, whole = len(whole), whole[whole > 0]
    return TokenCounts(
        num_dialogues=len(whole),
        num_examples=len(store),
        num_over_length=int(np.count_nonzero(whole > max_length)),
        num_tokens=store.num_tokens,
        num_dialogue_tokens=int(whole.sum()),
        num_targets_by_role={
            "assistant": store.num_targets(ASSISTANT_TARGET),
            "user": store.num_targets(USER_TARGET),
        },
        median_tokens=float(np.median(whole)),
        max_tokens=int(whole.max()),
        num_split=store.num_split,
        num_left_out=num_dialogues - len(whole),
    )


def tokens_per_dialogue(store: TokenStore) -> Spread:
    """Return the distribution of dialogue lengths, before they are cut into windows."""
    whole = store.dialogues["num_tokens"]
    values, counts = np.unique(whole[whole > 0], return_counts=True)
    result = spread(dict(zip(values.tolist(), counts.tolist(), strict=True)))
    assert result is not None, "a store that passed has at least one dialogue"
    return result


def report_replies(store: TokenStore, what: str, max_length: int, emit: Emit) -> None:
    """Name the cost of dialogues that became one example for each reply."""
    number = num_whole = num_examples = num_tokens = 0
    for begin, records in blocks_of(store.dialogues):
        own = store.examples_between(begin, begin + len(records))
        dialogue_of = store.dialogue_of[own.start : own.stop] - begin
        whole = records["num_tokens"]
        is_one_by_one = (np.bincount(dialogue_of, None, len(whole)) > 1) & (whole <= max_length)
        is_kept = is_one_by_one[dialogue_of]
        number += int(np.count_nonzero(is_one_by_one))
        num_whole += int(whole[is_one_by_one].sum())
        num_examples += int(np.count_nonzero(is_kept))
        num_tokens += int(store.lengths[own.start : own.stop][is_kept].sum())
    if number:
        emit(
            Notice(
                f"{what} data: {number:,} dialogues became {num_examples:,} examples, one for "
                f"each reply, with {num_tokens / num_whole:.1f} times their tokens"
            )
        )


@dataclass(frozen=True, slots=True)
class Leak:
    """Dialogues of a data set that an earlier one also contains."""

    data_set: str
    """The later data set: validation or test."""
    message: str
    examples: str
    """Places of the first dialogues; empty if all dialogues are shared."""


def find_leaks(
    stores: Mapping[str, TokenStore], files: Mapping[str, Sequence[str]]
) -> Iterator[Leak]:
    """Compare each data set with the earlier ones: validation with train, test with both."""
    for (earlier, seen), (later, asked) in combinations(stores.items(), 2):
        num_shared, places = _shared(seen, asked)
        name = SET_NAMES[earlier]
        if not num_shared:
            continue
        if num_shared == asked.num_dialogues:
            effect = (
                "so the scores show what the model memorised, not what it can answer"
                if earlier == "train"
                else "which chooses the best checkpoint, so the test shows nothing new"
            )
            message = (
                f"every {later} dialogue is also in the {name} data, {effect}; use other "
                f"dialogues for data.{later}"
            )
            yield Leak(later, message, "")
            continue
        scores = "test scores" if earlier == "validation" else "scores"
        pairs = [
            f"{asked.where(index, files[later])} is {seen.where(first, files[earlier])}"
            for index, first in places
        ]
        message = (
            f"the {name} data also contains {num_shared:,} of {asked.num_dialogues:,} {later} "
            f"dialogues, so {scores} look better than they are"
        )
        yield Leak(later, message, f"({'; '.join(pairs)}{' …' if num_shared > len(pairs) else ''})")


def _shared(seen: TokenStore, asked: TokenStore) -> tuple[int, list[tuple[int, int]]]:
    """Return the number of dialogues that are in both stores, and both indices of the first few."""
    known = np.sort(seen.kept_fingerprints)
    num, first = 0, list[int]()
    for begin, records in blocks_of(asked.dialogues):
        is_shared = is_among(records["fingerprint"], known) & (records["num_tokens"] > 0)
        num += int(np.count_nonzero(is_shared))
        first += (np.flatnonzero(is_shared)[: _NAMED - len(first)] + begin).tolist()
    del known
    return num, [(index, _find(asked.dialogues[index]["fingerprint"], seen)) for index in first]


def _find(fingerprint: np.uint64, store: TokenStore) -> int:
    """Return the index of the first dialogue with this fingerprint that is not left out."""
    for begin, records in blocks_of(store.dialogues):
        is_it = (records["fingerprint"] == fingerprint) & (records["num_tokens"] > 0)
        if is_it.any():
            return begin + int(np.argmax(is_it))
    raise AssertionError("a fingerprint of the store is in it")


def _num_trained_replies(dialogue: Dialogue, train_on: TrainOn) -> int:
    replies = [turn for turn in dialogue.turns if turn.is_reply]
    return sum(turn.is_trained for turn in (replies[-1:] if train_on == "last" else replies))
