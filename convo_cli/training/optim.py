"""The AdamW optimizer; learning rate and targets as pure functions of the step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from convo_cli.config.schema import RunConfig, TrainingConfig
from convo_cli.model.adapters.lora import is_token_row
from convo_cli.tokens.store import ASSISTANT_TARGET, USER_TARGET

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def make_optimizer(model: PreTrainedModel, config: TrainingConfig) -> torch.optim.AdamW:
    """Return a fused AdamW; biases, norms and embeddings get no weight decay.

    Its learning rate is 0 until the loop sets it, at every step.
    """
    embeddings = {
        id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)
    }
    decayed: list[torch.nn.Parameter] = []
    kept: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_row = id(parameter) in embeddings or is_token_row(name)
            (decayed if parameter.ndim >= 2 and not is_row else kept).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=config.betas, eps=config.epsilon, fused=True)


def learning_rate_at(step: int, training: TrainingConfig, max_steps: int) -> float:
    """Return the learning rate of the update after ``step`` finished ones.

    The rate rises linearly and peaks at the last warm-up step; the warm-up ends no later than the
    horizon. Then it falls, reaches its floor at the last step of the horizon, and stays there.
    """
    horizon = horizon_of(training, max_steps)
    warmup_steps = min(training.warmup_steps, horizon)
    if step < warmup_steps:
        return training.learning_rate * (step + 1) / warmup_steps
    if training.schedule == "constant":
        return training.learning_rate
    remaining = horizon - 1 - warmup_steps
    progress = min(1.0, (step - warmup_steps) / remaining) if remaining > 0 else 1.0
    fall = (
        0.5 * (1.0 + math.cos(math.pi * progress))
        if training.schedule == "cosine"
        else 1.0 - progress
    )
    return training.learning_rate * (training.min_lr_ratio + (1.0 - training.min_lr_ratio) * fall)


def horizon_of(training: TrainingConfig, max_steps: int) -> int:
    """Return the length of the schedule in steps.

    `dialogue.user_turns_until` is a fraction of it too.
    """
    return training.schedule_steps or max_steps


def schedule_corners(training: TrainingConfig, max_steps: int) -> tuple[int, int, int]:
    """Return the steps between which the rate is smooth.

    They are the last step of the warm-up, the next one, and the last one of the horizon.
    """
    horizon = horizon_of(training, max_steps)
    warmup_steps = min(training.warmup_steps, horizon)
    return warmup_steps - 1, warmup_steps, horizon - 1


def has_user_targets(step: int, user_turns_until: float, horizon: int) -> bool:
    """Return whether the update after ``step`` finished ones is trained on user turns."""
    return user_turns_until >= 1.0 or step < user_turns_until * horizon


def target_kinds_at(step: int, config: RunConfig, max_steps: int) -> set[int]:
    """Return the target kinds of a step; the user's only while the curriculum includes them."""
    dialogue, horizon = config.dialogue, horizon_of(config.training, max_steps)
    if dialogue.train_on == "all" or has_user_targets(step, dialogue.user_turns_until, horizon):
        return {ASSISTANT_TARGET, USER_TARGET}
    return {ASSISTANT_TARGET}
