"""Refusals of an export before a model is loaded."""

from __future__ import annotations

import json
from pathlib import Path

from convo_cli.errors import ModelError, UsageError
from convo_cli.export.format import Dtype
from convo_cli.export.formats import FORMATS
from convo_cli.storage.foreign_files import ADAPTER_CONFIG


def require_supported(folder: Path, name: str, dtype: Dtype | None) -> None:
    """Raise ConvoError if a format cannot hold the checkpoint in a folder."""
    about = FORMATS[name].about()
    if not (about.merges or (folder / ADAPTER_CONFIG).exists()):
        raise UsageError(
            f"--format adapter exports the adapter of a run with model.lora, but {folder} holds a "
            "whole model",
            hint="leave out --format",
        )
    model_type = json.loads((folder / "config.json").read_bytes())["model_type"]
    if about.architectures is not None and model_type not in about.architectures:
        raise ModelError(
            f"--format legacy writes only GPT-2 models, but this is {model_type}",
            hint="old transformers would read its config.json differently; leave out --format",
        )
