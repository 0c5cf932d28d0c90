"""Evaluation of a model: the likelihood of held-out dialogues, and generated replies."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from convo_cli.config.schema import GenerationSettings, TrainOn
from convo_cli.data.dialogue import Dialogue
from convo_cli.errors import EvaluationDivergedError, OutOfMemoryError
from convo_cli.evaluation.health.judges import findings_of
from convo_cli.evaluation.health.reply_probes import probe
from convo_cli.evaluation.health.signs import RunSoFar, Vitals
from convo_cli.evaluation.likelihood import GroupsOf, nll_by_groupings, target_kinds
from convo_cli.evaluation.replies import reply_to_all
from convo_cli.evaluation.shared_replies import EvaluationStoppedError, SharedReplies
from convo_cli.events import Emit, EvaluationDone, Notice, Progress, SampleReply
from convo_cli.metrics.intervals import intervals_of
from convo_cli.metrics.reply_scores import measure, score_real_replies, scores_of
from convo_cli.model.batches.batching import Batching
from convo_cli.model.decoding.generator import Generator
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.tokens.store import (
    USER_TARGET,
    Example,
    TokenStore,
)
from convo_cli.wording import counted
from convo_cli.world import World

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

_MAX_SLOTS = 8192  # tokens with padding per batch
_WORDS, _END, _USER = range(3)
"""Groups of targets: the words of a reply, the token that ends it, and a user's turn."""


@dataclass(frozen=True)
class Evaluator:
    """Scores any weights on the same data in the same way."""

    encoder: DialogueEncoder
    batching: Batching
    store: TokenStore
    dialogues: Sequence[Dialogue]
    """Dialogues that get a generated reply."""
    train_on: TrainOn
    generation: GenerationSettings
    device: torch.device
    autocast: Callable[[], AbstractContextManager[None]]
    emit: Emit
    num_files: int = 1
    """Files that the dialogues of the store come from."""
    stage: str = "evaluating"
    """Name of the stage in the progress view."""
    so_far: RunSoFar | None = None
    """The run that is evaluated; None for a finished model."""
    world: World = field(default_factory=World)
    """The processes that share the work."""
    is_stopped: Callable[[], bool] = lambda: False
    """Returns whether this process has a stop request."""

    def __call__(self, model: PreTrainedModel, step: int) -> EvaluationDone:
        """Evaluate the weights after ``step`` steps, without touching any random state.

        The model is left in evaluation mode. EvaluationDivergedError if the loss is not finite,
        EvaluationStoppedError after a stop request in any process of the world.
        """
        started = time.perf_counter()
        kinds = target_kinds(self.train_on)
        done = 0

        def count(num_examples: int) -> None:
            nonlocal done
            done += num_examples
            self.emit(Progress(self.stage, done, len(self.store), "examples"))
            if self.world.any(self.is_stopped()):
                raise EvaluationStoppedError

        count(0)
        groupings: list[tuple[GroupsOf, int]] = [(self._groups_of, 3)]
        if self.num_files > 1:
            groupings.append((self._files_of, self.num_files))
        found, *by_file = nll_by_groupings(
            model, self.batching, self.store, kinds, groupings, self.device,
            self.autocast, count, max_slots=_MAX_SLOTS, world=self.world,
        )  # fmt: skip
        loss = found.mean() or 0.0
        if not math.isfinite(loss):
            raise EvaluationDivergedError(
                f"the loss on the evaluation data is {loss} after step {step}",
                hint="set training.precision to bf16 or fp32, or continue from the best checkpoint "
                "with a lower training.learning_rate",
            )
        replies = self._replies(model)
        scores = EvaluationDone(
            step=step,
            loss=loss,
            perplexity=math.exp(min(loss, 700.0)),
            num_targets=int(found.counts.sum()),
            seconds=0.0,
            num_split=self.store.num_split,
            end_nll=found.mean([_END]),
            inner_nll=found.mean([_WORDS]),
            loss_by_file=tuple(
                one.mean([file]) for one in by_file for file in range(self.num_files)
            ),
        )
        judged = self.world.first_alone(lambda: self._judge(model, scores, replies))
        # The others need what decides about early stopping, not samples and findings.
        (metrics, real_scores), *_ = self.world.gather(
            (dict(judged.metrics), dict(judged.real_scores)) if judged else ({}, {})
        )
        result = judged or replace(scores, metrics=metrics, real_scores=real_scores)
        return replace(result, seconds=time.perf_counter() - started)

    def _judge(
        self, model: PreTrainedModel, scores: EvaluationDone, replies: list[SampleReply]
    ) -> EvaluationDone:
        """Add the scores of the replies, and what they and the likelihood say of the health."""
        measured = measure(replies)
        scores = replace(
            scores,
            metrics=scores_of(measured),
            real_scores=score_real_replies(replies),
            intervals=intervals_of(measured),
            samples=tuple(replies),
        )
        probes = probe(
            model, self.encoder, self.batching, self.dialogues, self.device, self.autocast,
            max_slots=_MAX_SLOTS,
        )  # fmt: skip
        return replace(scores, findings=findings_of(Vitals(scores, probes), self.so_far))

    def _groups_of(self, index: int, example: Example) -> NDArray[np.integer]:
        """Return the group of each token of an example."""
        is_end = np.isin(example.input_ids, self.encoder.stop_ids)
        groups = np.where(is_end, _END, _WORDS)
        return np.where(example.targets == USER_TARGET, _USER, groups)

    def _files_of(self, index: int, example: Example) -> NDArray[np.integer]:
        return np.full(len(example.targets), self.store.files_of(index))

    def _replies(self, model: PreTrainedModel) -> list[SampleReply]:
        """Generate replies to all dialogues; return none if memory runs out."""
        num = len(self.dialogues)

        def show(done: int) -> None:
            if num:
                self.emit(Progress("generating replies", done, num, "dialogues"))

        show(0)
        shared = SharedReplies(self.world, show, self.is_stopped)
        generator = Generator(model, self.encoder)
        try:
            replies = reply_to_all(generator, self.dialogues, self.generation, shared)
        except OutOfMemoryError as error:
            message = (
                f"not enough memory to generate replies ({error.message}), so this "
                "evaluation has no metrics; lower generation.max_new_tokens"
            )
            self.emit(Notice(message, is_warning=True))
            return []
        if left_out := num - len(replies):
            message = (
                f"no score for {left_out:,} of {counted(num, 'dialogue')}: the turn to answer is "
                "longer than the model's window"
            )
            self.emit(Notice(message, is_warning=True))
        return replies
