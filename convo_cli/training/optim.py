"""AdamW over the model's parameters, decaying matrices only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from convo_cli.config.schema import TrainingConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def make_optimizer(model: PreTrainedModel, config: TrainingConfig) -> torch.optim.AdamW:
    """Fused AdamW; biases, norms and embeddings are in a group without weight decay."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    decayed: list[torch.nn.Parameter] = []
    kept: list[torch.nn.Parameter] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            (decayed if parameter.ndim >= 2 and id(parameter) not in embeddings else kept).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, eps=config.epsilon, fused=True)
