"""Parts of a run: everything that is built from its config before the first step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from convo_cli.config.schema import RunConfig
from convo_cli.data.dialogue import Dialogue
from convo_cli.data.held_out.training_facts import TrainingFacts
from convo_cli.model.batches.batching import Batching
from convo_cli.prepare.prepare import PreparedData
from convo_cli.runs.provenance.execution import Execution
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.spiece.piece_model import SpieceFile
from convo_cli.tokens.order import Order
from convo_cli.world import World

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class FittedPass:
    """The worst pass of a run, which fits in memory."""

    needed: int
    """Bytes of activations, logits and gradients."""
    room: int
    """Bytes that the process could hold in all before passes left unused memory in it."""


@dataclass(frozen=True)
class Parts:
    """Everything that is built from a config before the first step."""

    config: RunConfig
    encoder: DialogueEncoder
    spiece: SpieceFile | None
    model: PreTrainedModel
    data: PreparedData
    reply_dialogues: tuple[Dialogue, ...]
    """Validation dialogues that get a generated reply at each evaluation."""
    test_reply_dialogues: tuple[Dialogue, ...]
    """Test dialogues that get one at the end of the run."""
    training_facts: TrainingFacts
    """Facts of the training data that evaluations are compared with."""
    batching: Batching
    execution: Execution
    device: torch.device
    order: Order
    """The examples that each step is trained on."""
    max_steps: int
    fitted: FittedPass | None = None
    """The pass that training.micro_batch_size: auto found to fit."""
    world: World = field(default_factory=World)
