"""The `Job` of a run directory: supplies data and schedule, evaluates, saves checkpoints."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import numpy as np
from torch import Tensor

from convo_cli.config.schema import PretrainedModel
from convo_cli.data.dialogue import Dialogue
from convo_cli.evaluation.evaluator import Evaluator
from convo_cli.evaluation.health.run_facts import RunFacts
from convo_cli.evaluation.health.signs import RunSoFar
from convo_cli.evaluation.health.training_curve import TrainingCurve
from convo_cli.evaluation.likelihood import target_kinds
from convo_cli.evaluation.shared_replies import EvaluationStoppedError
from convo_cli.events import Emit, EvaluationDone, Event, StepDone
from convo_cli.model.batches.file_losses import FileLosses, count_targets
from convo_cli.model.batches.loss import Batch
from convo_cli.model.cost import FlopCounter
from convo_cli.model.device import autocast_for
from convo_cli.model.usage import UsageMeter, usage_of_job
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.logs.evaluations import weights_of
from convo_cli.signals import UNSAVED, StopRequest
from convo_cli.text.tokenizers.vocabulary import num_ids
from convo_cli.tokens.order import share_of
from convo_cli.tokens.store import Example, TokenStore
from convo_cli.training.loop import Job, StepPlan
from convo_cli.training.optim import learning_rate_at, target_kinds_at
from convo_cli.training.run_parts import Parts
from convo_cli.training.sharding.fsdp import reduce_gradients, run_inside, whole_model
from convo_cli.training.sharding.joint_saving import save_step
from convo_cli.training.state import EarlyStopping, TrainState

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class RunJob(Job):
    """Train by the config of a run; write evaluations and checkpoints into its directory.

    ``evaluations`` holds those of the run so far, by step, and ``curve`` its steps; the caller adds
    each emitted one.
    """

    def __init__(
        self,
        run: RunDirectory,
        parts: Parts,
        stop: StopRequest,
        emit: Emit,
        evaluations: Mapping[int, EvaluationDone] = MappingProxyType({}),
        curve: TrainingCurve | None = None,
    ) -> None:
        self.max_steps, self.seed = parts.max_steps, parts.config.seed
        self.max_grad_norm = parts.config.training.max_grad_norm
        self.early_stopping = EarlyStopping.of(parts.config.evaluation)
        self.world = parts.world
        self._run, self._parts, self._stop = run, parts, stop
        self._emit, self._evaluations = emit, evaluations
        self._facts = RunFacts(
            training=parts.data.train,
            validation=parts.data.validation,
            target_kinds=target_kinds(parts.config.dialogue.train_on),
            num_ids=num_ids(parts.encoder.tokenizer),
            training_facts=parts.training_facts,
            dialogues=parts.reply_dialogues,
            evaluations=evaluations,
            curve=curve or TrainingCurve(),
        )
        self._autocast = autocast_for(parts.device, parts.execution.precision)
        self._count_flops = FlopCounter(parts.model)
        self._usage = UsageMeter(parts.device)
        self._by_file = FileLosses(len(parts.config.data.train))
        self._waiting_seconds = self._flops = 0.0
        self._last: Batch | None = None

    def plan(self, step: int) -> StepPlan:
        """Return this rank's examples of the step, sorted by length and cut into micro-batches."""
        started = time.perf_counter()
        parts, store = self._parts, self._parts.data.train
        chosen = parts.order.examples(step)
        kinds = target_kinds_at(step, parts.config, parts.max_steps)
        chosen = chosen[np.argsort(store.lengths[chosen], kind="stable")]
        examples = [store[int(index)] for index in chosen]
        num_targets = count_targets(examples, kinds)
        own = share_of(store.lengths[chosen], self.world.rank, self.world.size)
        batches = [
            parts.batching.batch([examples[index] for index in own[part]], kinds)
            for part in parts.batching.split(
                store.lengths[chosen[own]], parts.execution.micro_batch_size or len(chosen)
            )
        ]
        self._by_file.begin(store.files_of(chosen), num_targets, own)
        self._flops = sum(map(self._count_flops, batches))
        if parts.execution.sharding == "full":
            batches += self._empty_passes(examples, len(batches))
        self._last = batches[-1] if batches else None
        self._waiting_seconds = time.perf_counter() - started
        return StepPlan(
            batches,
            num_tokens=int(store.lengths[chosen].sum()),
            num_targets=int(num_targets.sum()),
        )

    def _empty_passes(self, examples: Sequence[Example], num_passes: int) -> list[Batch]:
        """Return passes without targets: parts are gathered only if all processes take as many."""
        parts, size = self._parts, self.world.size
        lengths = np.array([len(example.input_ids) for example in examples])
        most = parts.execution.micro_batch_size or len(examples)
        shares = (lengths[share_of(lengths, rank, size)] for rank in range(size))
        wanted = max(len(parts.batching.split(share, most)) for share in shares)
        return [parts.batching.batch(examples[:1], ()) for _ in range(wanted - num_passes)]

    def nll_sum(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        """Compute the loss of a batch with the batching and the precision of the run."""
        reduce_gradients(model, is_due=batch is self._last)
        moved = batch.to(self._parts.device)
        with self._autocast():
            total, each = run_inside(model, lambda: self._parts.batching.nll(model, moved))
        self._by_file.add(batch, each)
        return total

    def learning_rate(self, step: int) -> float:
        return learning_rate_at(step, self._parts.config.training, self._parts.max_steps)

    def is_due(self, what: Literal["evaluation", "checkpoint"], step: int) -> bool:
        if what == "evaluation":
            return is_evaluation_due(self._parts, step)
        config = self._parts.config
        return _is_due(
            self._parts, step, config.checkpoints.every_steps or config.evaluation.every_steps
        )

    def evaluate(self, state: TrainState) -> EvaluationDone | None:
        """Score the weights; the result names them by the hash in their checkpoint's manifest."""
        store, step = self._parts.data.validation, state.progress.step
        assert store is not None, "no evaluation is due without validation data"
        with self._stop.finishing("stopping; `convo resume` repeats this evaluation"):
            dialogues, so_far = self._parts.reply_dialogues, self._facts.so_far(step)
            data = self._parts.config.data
            scores = self.score(
                store, dialogues, step, stage="evaluating", so_far=so_far,
                num_files=len(data.validation or data.train),
            )  # fmt: skip
        if scores is None or not self.world.is_first:
            return scores
        floors, weights = self._facts.floors(scores.samples), weights_of(self._run.checkpoint(step))
        return replace(scores, floors=floors, weights=weights)

    def score(
        self,
        store: TokenStore,
        dialogues: Sequence[Dialogue],
        step: int,
        *,
        stage: str,
        num_files: int = 1,
        so_far: RunSoFar | None = None,
        model: PreTrainedModel | None = None,
    ) -> EvaluationDone | None:
        """Score the model, whose weights are those of ``step``, on validation or test data.

        ``dialogues`` get a reply; ``so_far`` are the facts of the run that its health is judged by;
        ``model`` is by default that of the run. None if a stop was requested before the end.
        """
        parts, config = self._parts, self._parts.config

        evaluator = Evaluator(
            encoder=parts.encoder,
            batching=parts.batching,
            store=store,
            dialogues=dialogues,
            train_on=config.dialogue.train_on,
            generation=config.generation,
            device=parts.device,
            autocast=self._autocast,
            emit=self.emit,
            num_files=num_files,
            stage=stage,
            so_far=so_far,
            world=self.world,
            is_stopped=self._has_request,
        )
        try:
            if model is not None:
                return evaluator(model, step)
            with whole_model(parts.model) as whole:
                return evaluator(whole, step)
        except EvaluationStoppedError:
            return None

    def save(self, state: TrainState) -> None:
        with self._stop.finishing("stopping after this checkpoint is saved", second=UNSAVED):
            run, scores, world = self._run, self._evaluations, self.world
            save_step(run, self._parts, state, scores, self.emit, world=world, prunes=True)

    def is_stopped(self) -> bool:
        """Return whether a process of the world has a stop request."""
        return self.world.any(self._has_request())

    def _has_request(self) -> bool:
        return self._stop.is_set or self._run.is_stop_requested

    def emit(self, event: Event) -> None:
        """Pass an event on; complete a `StepDone`, and emit the usage of the device after it."""
        if not isinstance(event, StepDone):
            self._emit(event)
            return
        # As soon as a measurement is due in one process, all processes measure.
        is_due = self._usage.is_due() or event.step == event.max_steps
        flops, num_due, *nll = self.world.sum([self._flops, is_due, *self._by_file.sums()])
        losses, counts = self._by_file.result(nll)
        self._emit(
            replace(
                event,
                epoch=self._parts.order.epoch(event.step),
                waiting_seconds=self._waiting_seconds,
                flops=flops,
                loss_by_file=losses,
                num_targets_by_file=counts,
            )
        )
        if num_due:
            self._emit(usage_of_job(self._usage.measure(event.step), self.world))


def is_evaluation_due(parts: Parts, step: int) -> bool:
    """Return whether a step is evaluated: at the intervals of the config, and at the last step.

    Step 0 is one of a run from a pretrained model, whose scores are those to improve on.
    """
    if parts.data.validation is None:
        return False
    if step == 0:
        return isinstance(parts.config.model.origin, PretrainedModel)
    return step == parts.max_steps or _is_due(parts, step, parts.config.evaluation.every_steps)


def _is_due(parts: Parts, step: int, every: int | None) -> bool:
    """Return whether an interval ends at the step: ``every`` steps, or an epoch if it is None."""
    return parts.order.ends_epoch(step) if every is None else step % every == 0
