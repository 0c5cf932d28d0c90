"""Presets: complete configs to start from.

Keys that a preset omits have the defaults of the schema.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from convo_cli.config import dailydialog
from convo_cli.config.forerunners import documented
from convo_cli.config.forerunners.documented import nested
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
        """Return the same preset with other data files; without validation, train is split."""
        data = {"train": list(train), "validation": list(validation), "test": list(test)}
        if validation:
            return replace(self, values={**self.values, "data": data}, data_note="")
        return replace(
            self,
            values={**self.values, "data": {**data, "validation_split": _SPLIT}},
            data_note="",
            reasons={**self.reasons, "data.validation_split": "Chosen: no file for validation."},
        )

    def unsplit(self) -> Preset:
        """Return the same preset without `data.validation_split`, for data that has one opening."""
        data = {**self.values["data"], "validation_split": None}
        reason = "Not chosen: all dialogues begin with the same two turns."
        return replace(
            self,
            values={**self.values, "data": data},
            reasons={**self.reasons, "data.validation_split": reason},
        )

    def config(self) -> RunConfig:
        return build_config(self.values, f"preset {self.name}")


_SPLIT = 0.05
"""Share of the training data that is held back for validation if no file is named."""
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
    description="The sample of convmodel's LightningCLI document: <sep> between turns, all turns "
    "trained on.",
    note=(
        "2,410,000 steps of 16 dialogues in fp16 need a GPU. The document's own model is "
        "colorfulscoop/gpt2-small-ja. The option --from converts your own config."
    ),
    values={**nested(documented.CONVMODEL), "data": _SAMPLE},
)

CONVMODEL_FIT = Preset(
    name="convmodel-fit",
    description="The defaults of convmodel's fit command: one dialogue a step, a constant rate.",
    note=(
        "Its warm-up of 10000 steps at one dialogue a step is meant for at least 100000 dialogues: "
        "with fewer, lower warmup_steps and raise batch_size."
    ),
    values={**nested(documented.CONVMODEL_FIT), "data": _SAMPLE},
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
        **nested(documented.MULTI_TURN),
        "data": {**_DAILYDIALOG, "test": [f"{dailydialog.FOLDER}/test.jsonl"]},
    },
)

PRESETS = {
    preset.name: preset
    for preset in (
        SCRATCH,
        GPT2,
        CHAT_MODEL,
        DAILYDIALOG,
        CONVMODEL,
        CONVMODEL_FIT,
        MULTI_TURN_GPT2,
    )
}


def find_preset(name: str) -> Preset:
    """Return the preset of that name; UsageError suggests the most similar one."""
    if name in PRESETS:
        return PRESETS[name]
    close = difflib.get_close_matches(name.lower(), PRESETS, n=1, cutoff=0.4)
    hint = f"did you mean --preset {close[0]}?" if close else "convo init-config --list-presets"
    message = f"--preset {name}: no such preset; the presets are {', '.join(PRESETS)}"
    raise UsageError(message, hint=hint)
