"""Sources of exports with small random models, and folders written from them without a proof."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from convo_cli.config.schema import GenerationSettings
from convo_cli.export.folders import huggingface
from convo_cli.export.format import Dtype
from convo_cli.export.source import Source
from convo_cli.model.decoding.generator import Generator
from convo_cli.model.decoding.sampling_defaults import set_generation_defaults
from convo_cli.model.loading import save_model
from convo_cli.text.contract import save_encoder
from convo_cli.text.encoder import DialogueEncoder
from tests.random_models import FAMILIES, build


def make_source(
    folder: Path, family: str, encoder: DialogueEncoder, max_shard_bytes: int | None = None
) -> Source:
    """Write a model with random weights and its encoder, as a checkpoint holds them."""
    folder.mkdir(parents=True)
    model = build(*FAMILIES[family], len(encoder.tokenizer))
    set_generation_defaults(model, encoder, GenerationSettings())
    save_model(model, folder)
    save_encoder(encoder, folder, spiece=None)
    files = tuple(
        file
        for file in sorted(folder.iterdir())
        if file.name not in ("generation_config.json", "chat_template.jinja")
    )
    generator = Generator(model, encoder, folder)
    return Source(folder, files, generator, None, None, max_shard_bytes=max_shard_bytes)


def write_folder(source: Source, out: Path, dtype: Dtype = "fp32", emit: Any = None) -> Path:
    """Write the Hugging Face folder of a source."""
    out.mkdir(parents=True)
    huggingface.write(source, out, dtype, emit or (lambda event: None))
    return out
