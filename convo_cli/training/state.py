"""Everything that changes during a run, and so everything that a checkpoint holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from convo_cli.runs.checkpoints import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass
class TrainState:
    """Model, optimizer and gradient scaler, and how far the run has come. The loop advances it in place.

    There is no random state in it: dropout is seeded by the step, the order of examples and the learning rate are
    functions of the step.
    """

    model: PreTrainedModel
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    progress: Progress = field(default_factory=Progress)
    run_id: str = ""
    """Which run this is; the name of its directory may change."""
    is_evaluated: bool = False
    """Whether the scores of these weights are in `progress`. Not in a checkpoint: they stand in metrics.jsonl."""
