"""Likelihood of data files under a finished model: in total, by turn, by file, per byte and word.

Shapes: D dialogues, K = 4 sums of a dialogue or of several, R resampled files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from convo_cli.errors import EvaluationDivergedError
from convo_cli.evaluation.finished.evaluated_files import EvaluatedFiles
from convo_cli.evaluation.likelihood import GroupedNll, GroupsOf, nll_by_groupings
from convo_cli.events import Emit, Progress
from convo_cli.metrics.intervals import bounds_of, resampled_sums
from convo_cli.model.batches.batching import Batching, batching_for
from convo_cli.model.decoding.generator import Generator
from convo_cli.tokens.store import ASSISTANT_TARGET, USER_TARGET, Example, TokenStore
from convo_cli.world import World

if TYPE_CHECKING:
    from collections.abc import Sequence

Array: TypeAlias = NDArray[np.float64]

NUM_TURNS = 5
"""Assistant turns with a score of their own; the last one includes all later turns."""
MAX_SLOTS = 8192
"""Tokens with padding per batch."""
_LARGEST = 700.0  # the exponential function ends at 709


@dataclass(frozen=True, slots=True)
class ScoredTargets:
    """Mean nll in nats of some targets, and their number."""

    loss: float
    num_targets: int

    @property
    def perplexity(self) -> float:
        """Return exp(loss), bounded so that it stays finite."""
        return math.exp(min(self.loss, _LARGEST))


@dataclass(frozen=True)
class Likelihood:
    """The likelihood of the files: of assistant targets, unless a field says otherwise."""

    assistant: ScoredTargets
    everything: ScoredTargets
    """Targets of assistant and user turns."""
    by_turn: tuple[ScoredTargets | None, ...]
    """By number of the assistant turn in its dialogue, from 1; None if no dialogue has as many."""
    by_file: tuple[ScoredTargets | None, ...]
    end_nll: float | None
    """Mean nll of the tokens that end the replies, in nats."""
    inner_nll: float | None
    """Mean nll of the other targets."""
    sums: Array
    """(D, K) nll, targets, bytes and words of each dialogue."""

    @property
    def scores(self) -> dict[str, float]:
        """Return the scores of `LIKELIHOOD_SCORES`."""
        total = self.sums.sum(axis=0)
        return {name: float(score(total)) for name, score in LIKELIHOOD_SCORES.items()}

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Return the 95 % interval of each score; none for a single dialogue."""
        if len(self.sums) < 2:
            return {}
        sums = resampled_sums(self.sums)
        return {name: bounds_of(score(sums)) for name, score in LIKELIHOOD_SCORES.items()}


def _loss(sums: Array) -> Array:
    return np.asarray(sums[..., 0] / np.maximum(sums[..., 1], 1))


def _bits_per_byte(sums: Array) -> Array:
    return np.asarray(sums[..., 0] / math.log(2) / np.maximum(sums[..., 2], 1))


def _exp_per(column: int, sums: Array) -> Array:
    per = sums[..., 0] / np.maximum(sums[..., column], 1)
    return np.asarray(np.exp(np.minimum(per, _LARGEST)))


LIKELIHOOD_SCORES: Mapping[str, Callable[[Array], Array]] = {
    "loss": _loss,
    "perplexity": partial(_exp_per, 1),
    "bits-per-byte": _bits_per_byte,
    "word-perplexity": partial(_exp_per, 3),
}
"""Scores as functions of sums, (..., K) to (...); lower is better."""
OF_ANY_TOKENIZER = ("bits-per-byte", "word-perplexity")
"""The scores that do not depend on how a text is cut into tokens."""


def choose_batching(generator: Generator, store: TokenStore, emit: Emit) -> Batching:
    """Return the batching of the model's run, or choose one for the examples of the store."""
    return batching_for(
        generator.model,
        store,
        (ASSISTANT_TARGET,),
        info=None if generator.loaded is None else generator.loaded.info,
        packing="auto",
        pad_id=generator.encoder.pad_id,
        autocast=nullcontext,
        emit=emit,
        is_trained=False,
    )


def measure_likelihood(
    generator: Generator,
    batching: Batching,
    files: EvaluatedFiles,
    emit: Emit,
    world: World | None = None,
) -> Likelihood:
    """Score every target of the files once, in fp32; the processes of the world share the work.

    EvaluationDivergedError if the loss is not finite.
    """
    store, encoder = files.store, generator.encoder
    done = 0

    def count(num_examples: int) -> None:
        nonlocal done
        done += num_examples
        emit(Progress("evaluating", done, len(store), "examples"))

    count(0)
    num_dialogues = len(store.dialogues)
    by_turn, by_dialogue = nll_by_groupings(
        generator.model,
        batching,
        store,
        (ASSISTANT_TARGET, USER_TARGET),
        [
            (_turn_groups(store, encoder.stop_ids), 2 * NUM_TURNS + 1),
            (_dialogue_groups(store), 2 * num_dialogues),
        ],
        generator.model.device,
        nullcontext,
        count,
        max_slots=MAX_SLOTS,
        world=world,
    )
    found = _likelihood(files, by_turn, by_dialogue)
    if not math.isfinite(found.everything.loss):
        raise EvaluationDivergedError(
            f"the loss on the evaluation data is {found.everything.loss}",
            hint="evaluate another checkpoint of its run, or another model",
        )
    return found


def _turn_groups(store: TokenStore, stop_ids: Sequence[int]) -> GroupsOf:
    """Return the groups: 0 for user targets, else 1 + 2 * (turn - 1), and 1 more for its end."""

    def ends(example: Example) -> NDArray[np.bool_]:
        is_stop = np.isin(example.input_ids, stop_ids)
        return np.asarray(is_stop & (example.targets == ASSISTANT_TARGET))

    # The end token of every scored turn is a target, so it separates the turns of a dialogue, also
    # where windows or a split turn begin a new example.
    counts = (int(np.count_nonzero(ends(store[k]))) for k in range(len(store)))
    num_ends = np.fromiter(counts, np.int64, len(store))
    before = np.cumsum(num_ends) - num_ends  # (N,) in all earlier examples
    first = np.flatnonzero(np.diff(store.dialogue_of, prepend=-1))  # of each dialogue
    earlier = before - np.repeat(before[first], np.diff(first, append=len(store)))

    def groups_of(index: int, example: Example) -> NDArray[np.int64]:
        is_end = ends(example)
        turns = earlier[index] + np.cumsum(is_end) - is_end  # (T,) from 0
        groups = 1 + 2 * np.minimum(turns, NUM_TURNS - 1) + is_end
        return np.where(example.targets == USER_TARGET, 0, groups)

    return groups_of


def _dialogue_groups(store: TokenStore) -> GroupsOf:
    """Return the groups: 2 * dialogue, and 1 more for user targets."""

    def groups_of(index: int, example: Example) -> NDArray[np.int64]:
        return np.asarray(2 * store.dialogue_of[index] + (example.targets == USER_TARGET))

    return groups_of


def _likelihood(files: EvaluatedFiles, by_turn: GroupedNll, by_dialogue: GroupedNll) -> Likelihood:
    def of(grouped: GroupedNll, groups: slice | NDArray[np.integer]) -> ScoredTargets | None:
        mean = grouped.mean(groups)
        return None if mean is None else ScoredTargets(mean, int(grouped.counts[groups].sum()))

    assistant, everything = of(by_turn, slice(1, None)), of(by_turn, slice(None))
    assert assistant is not None, "open_files requires assistant targets"
    assert everything is not None
    file_of = files.store.dialogues["file"]
    return Likelihood(
        assistant=assistant,
        everything=everything,
        by_turn=tuple(of(by_turn, slice(1 + 2 * k, 3 + 2 * k)) for k in range(NUM_TURNS)),
        by_file=tuple(
            of(by_dialogue, 2 * np.flatnonzero(file_of == number))
            for number in range(len(files.files))
        ),
        end_nll=by_turn.mean(slice(2, None, 2)),
        inner_nll=by_turn.mean(slice(1, None, 2)),
        sums=np.stack(
            [by_dialogue.nll[::2], by_dialogue.counts[::2], files.num_bytes, files.num_words], 1
        ).astype(np.float64),
    )


def paired_likelihood_intervals(
    one: Likelihood, other: Likelihood
) -> dict[str, tuple[float, float]]:
    """Return the 95 % interval of the first model's score minus the second's, for each score.

    Both are scores of the same dialogues, which are resampled alike.
    """
    if len(one.sums) < 2:
        return {}
    both = resampled_sums(np.concatenate([one.sums, other.sums], axis=1))
    ours, theirs = np.split(both, 2, axis=1)
    return {
        name: bounds_of(score(ours) - score(theirs)) for name, score in LIKELIHOOD_SCORES.items()
    }
