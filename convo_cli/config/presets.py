"""Presets: complete configs to start from.

Keys that a preset omits have the defaults of the schema.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from convo_cli.config import dailydialog
from convo_cli.config.load import build_config
from convo_cli.config.schema import RunConfig
from convo_cli.errors import UsageError


@dataclass(frozen=True, slots=True)
class Preset:
    """A named set of values; its notes are shown at the top of the YAML."""

    name: str
    description: str
    values: Mapping[str, Any]
    note: str = ""
    data_note: str = ""
    """A note about the preset's own data."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why a key has its value, by dotted key, if it was chosen for the data."""

    def with_data(
        self, train: Sequence[str], validation: Sequence[str] = (), test: Sequence[str] = ()
    ) -> Preset:
        """Return the same preset with other data files."""
        data = {"train": list(train), "validation": list(validation), "test": list(test)}
        return replace(self, values={**self.values, "data": data}, data_note="")

    def config(self) -> RunConfig:
        return build_config(self.values, f"preset {self.name}")


_SAMPLE = {"train": ["sample_data/train.jsonl"], "validation": ["sample_data/valid.jsonl"]}
_DAILYDIALOG = {
    "train": [f"{dailydialog.FOLDER}/train.jsonl"],
    "validation": [f"{dailydialog.FOLDER}/valid.jsonl"],
}

SCRATCH = Preset(
    name="scratch",
    description="A small new GPT-2 and tokenizer, trained on the sample dialogues in minutes on a "
    "laptop CPU.",
    values={
        "name": "demo",
        "data": _SAMPLE,
        "tokenizer": {"kind": "unigram", "vocab_size": 1200},
        "model": {
            "scratch": {"layers": 4, "width": 256, "heads": 4, "context": 256, "dropout": 0.1}
        },
        "dialogue": {"max_length": 256},
        "training": {
            "max_steps": 300,
            "batch_size": 16,
            "learning_rate": 1e-3,
            "schedule": "cosine",
            "warmup_steps": 30,
        },
        "evaluation": {"every_steps": 100, "reply_dialogues": 16},
    },
)

GPT2 = Preset(
    name="gpt2",
    description="Fine-tune the pretrained GPT-2 (124 M parameters) on your dialogues.",
    values={
        "name": "gpt2",
        "data": _SAMPLE,
        "model": {"pretrained": "gpt2"},
        "dialogue": {"template": "turns", "max_length": 512},
        "training": {
            "epochs": 3,
            "batch_size": 16,
            "learning_rate": 5e-5,
            "schedule": "linear",
            "warmup_steps": 20,
        },
    },
)

CHAT_MODEL = Preset(
    name="chat-model",
    description="Fine-tune a small pretrained chat model in its own chat template.",
    note="Any chat model can replace SmolLM2: set model.pretrained to a hub id or a local folder.",
    values={
        "name": "chat-model",
        "data": _SAMPLE,
        "model": {"pretrained": "HuggingFaceTB/SmolLM2-135M-Instruct"},
        "dialogue": {"template": "native", "max_length": 1024},
        "training": {
            "epochs": 2,
            "batch_size": 16,
            "learning_rate": 2e-5,
            "schedule": "cosine",
            "warmup_steps": 20,
            "precision": "auto",
        },
    },
)

CONVMODEL = Preset(
    name="convmodel",
    description="The defaults of convmodel: GPT-2, <sep> between turns, every turn trained on.",
    note=(
        "These are convmodel's documented defaults. Its warm-up of 10000 steps at one dialogue a "
        "step is meant for at least 100000 dialogues: with fewer, lower warmup_steps and raise "
        "batch_size."
    ),
    values={
        "name": "convmodel",
        "deterministic": False,
        "data": _SAMPLE,
        "model": {"pretrained": "gpt2"},
        "dialogue": {
            "template": "convmodel",
            "train_on": "all",
            "max_length": 1024,
            "long_turns": "split",
        },
        "training": {
            "epochs": 1,
            "batch_size": 1,
            "learning_rate": 1e-4,
            "schedule": "constant",
            "warmup_steps": 10000,
            "weight_decay": 0.01,
            "betas": [0.9, 0.999],
            "max_grad_norm": None,
            "precision": "fp32",
        },
        "evaluation": {"every_steps": 100, "reply_dialogues": 0},
        "logging": {"every_steps": 100},
    },
)

DAILYDIALOG = Preset(
    name="dailydialog",
    description="A new 6-layer GPT-2 for DailyDialog, trained for 600 steps.",
    data_note=dailydialog.NOTE,
    values={
        "name": "dailydialog",
        "data": _DAILYDIALOG,
        "tokenizer": {"kind": "unigram", "vocab_size": 8000},
        "model": {"scratch": {"layers": 6, "width": 384, "heads": 6, "context": 512}},
        "dialogue": {"max_length": 512},
        "training": {
            "max_steps": 600,
            "batch_size": 32,
            "learning_rate": 1e-3,
            "schedule": "cosine",
            "warmup_steps": 60,
        },
        "evaluation": {"every_steps": 100, "max_dialogues": 500},
    },
)

MULTI_TURN_GPT2 = Preset(
    name="multi-turn-gpt2",
    description="The defaults of multi-turn-chatbot-GPT2: DailyDialog, user turns trained on in "
    "the first half.",
    note="30000 steps of 60 dialogues need a GPU.",
    data_note=dailydialog.NOTE,
    values={
        "name": "daily_dialog_chatbot",
        "output_dir": "outputs/gpt2",
        "seed": 0,
        "deterministic": True,
        "data": _DAILYDIALOG,
        "model": {"pretrained": "gpt2"},
        "dialogue": {
            "template": "cls-sep",
            "train_on": "assistant",
            "user_turns_until": 0.5,
            "max_length": 128,
            "long_turns": "split",
        },
        "training": {
            "max_steps": 30000,
            "batch_size": 60,
            "learning_rate": 1e-4,
            "schedule": "cosine",
            "warmup_steps": 200,
            "min_lr_ratio": 0.1,
            "weight_decay": 0.0,
            "betas": [0.9, 0.999],
            "max_grad_norm": None,
            "precision": "fp32",
        },
        "evaluation": {
            "reply_dialogues": 200,
            "show_samples": 10,
            "early_stopping": {"patience": 5},
        },
        "generation": {"max_new_tokens": 128, "temperature": 0.0},
    },
)

PRESETS = {
    preset.name: preset
    for preset in (SCRATCH, GPT2, CHAT_MODEL, CONVMODEL, DAILYDIALOG, MULTI_TURN_GPT2)
}


def find_preset(name: str) -> Preset:
    """Return the preset of that name; UsageError suggests the most similar one."""
    if name in PRESETS:
        return PRESETS[name]
    close = difflib.get_close_matches(name.lower(), PRESETS, n=1, cutoff=0.4)
    hint = f"did you mean --preset {close[0]}?" if close else "convo init-config --list-presets"
    message = f"--preset {name}: no such preset; the presets are {', '.join(PRESETS)}"
    raise UsageError(message, hint=hint)
