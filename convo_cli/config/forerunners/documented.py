"""Values that the documents of convo's forerunners state, as values of convo."""

from __future__ import annotations

from typing import Any

CONVMODEL_FORMAT = {
    "name": "convmodel",
    "dialogue.template": "convmodel",
    "dialogue.train_on": "all",
    "dialogue.max_length": 1024,
    "dialogue.long_turns": "split",
    "training.betas": [0.9, 0.999],
    "evaluation.reply_dialogues": 0,
}
"""Values for which neither form of convmodel's config has a key; GPT-2 reads 1024 tokens."""
MULTI_TURN_FORMAT = {
    "dialogue.template": "cls-sep",
    "dialogue.train_on": "assistant",
    "dialogue.long_turns": "split",
    "training.weight_decay": 0.0,
    "training.betas": [0.9, 0.999],
    "training.max_grad_norm": None,
    "training.precision": "fp32",
    "evaluation.reply_dialogues": 200,
    "generation.max_new_tokens": 128,
    "generation.temperature": 0.0,
}
"""Values for which the config of multi-turn-chatbot-GPT2 has no key.

It generates a reply to each validation dialogue; 200 replies keep evaluations short.
"""

CONVMODEL = CONVMODEL_FORMAT | {
    "seed": 1000,
    "deterministic": True,
    "model.pretrained": "gpt2",
    "training.max_steps": 2_410_000,
    "training.batch_size": 16,
    "training.learning_rate": 1e-4,
    "training.schedule": "linear",
    "training.warmup_steps": 100_000,
    "training.min_lr_ratio": 0.0,
    "training.weight_decay": 0.0,
    "training.max_grad_norm": 1.0,
    "training.precision": "fp16",
    "evaluation.every_steps": 10_000,
    "checkpoints.every_steps": 10_000,
    "checkpoints.keep_best": 3,
    "logging.every_steps": 50,
}
CONVMODEL_FIT = CONVMODEL_FORMAT | {
    "deterministic": False,
    "model.pretrained": "gpt2",
    "training.epochs": 1,
    "training.batch_size": 1,
    "training.learning_rate": 1e-4,
    "training.schedule": "constant",
    "training.warmup_steps": 10_000,
    "training.weight_decay": 0.0,
    "training.max_grad_norm": None,
    "training.precision": "fp32",
    "logging.every_steps": 100,
}
MULTI_TURN = MULTI_TURN_FORMAT | {
    "name": "daily_dialog_chatbot",
    "output_dir": "outputs/gpt2",
    "seed": 0,
    "deterministic": True,
    "model.pretrained": "gpt2",
    "dialogue.user_turns_until": 0.5,
    "dialogue.max_length": 128,
    "training.max_steps": 30_000,
    "training.batch_size": 60,
    "training.learning_rate": 1e-4,
    "training.schedule": "cosine",
    "training.warmup_steps": 200,
    "training.min_lr_ratio": 0.1,
    "evaluation.show_samples": 10,
    "evaluation.early_stopping.patience": 5,
}


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """Return values by dotted key as nested sections."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        *sections, name = key.split(".")
        section = result
        for outer in sections:
            section = section.setdefault(outer, {})
        section[name] = value
    return result
