"""Facts of a run that its evaluations are compared with: floors, and measures of its health."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from convo_cli.data.dialogue import Dialogue
from convo_cli.data.held_out.training_facts import TrainingFacts, collect_facts
from convo_cli.evaluation.health.signs import RunSoFar
from convo_cli.evaluation.health.token_frequencies import frequency_loss
from convo_cli.evaluation.health.training_curve import TrainingCurve
from convo_cli.events import EvaluationDone, SampleReply
from convo_cli.metrics.floors import floor_replies
from convo_cli.metrics.reply_scores import score_replies
from convo_cli.tokens.store import TokenStore


@dataclass(frozen=True)
class RunFacts:
    """Facts about the data, computed once, and about the steps and evaluations so far."""

    training: TokenStore
    validation: TokenStore | None
    target_kinds: Collection[int]
    num_ids: int
    training_facts: TrainingFacts
    dialogues: Sequence[Dialogue]
    """Validation dialogues that get a reply."""
    evaluations: Mapping[int, EvaluationDone]
    curve: TrainingCurve

    def so_far(self, step: int) -> RunSoFar:
        """Return the facts by which the health of the weights after ``step`` steps is judged."""
        return RunSoFar(
            step=step,
            start=self.evaluations.get(0),
            training_loss=self.curve.loss,
            sum_of_rates=self.curve.sum_of_rates,
            frequency_loss=self._frequency_loss,
            training_facts=self.training_facts,
            validation_facts=self._validation_facts,
        )

    def floors(self, samples: Sequence[SampleReply]) -> dict[str, dict[str, float]]:
        """Return the scores of each floor on the same turns; they are the same at every step."""
        if not samples:
            return {}
        turns = tuple((one.history, one.reference, one.other_references) for one in samples)
        if turns not in self._known_floors:
            floors = floor_replies(samples, self.training_facts.replies)
            self._known_floors[turns] = {
                name: score_replies(replies) for name, replies in floors.items()
            }
        return self._known_floors[turns]

    @cached_property
    def _known_floors(self) -> dict[object, dict[str, dict[str, float]]]:
        return {}

    @cached_property
    def _frequency_loss(self) -> float | None:
        if self.validation is None:
            return None
        return frequency_loss(self.training, self.validation, self.target_kinds, self.num_ids)

    @cached_property
    def _validation_facts(self) -> TrainingFacts:
        return collect_facts(self.dialogues, "the validation data")
