"""Random models as sources of an export, and their comparison with what a runtime gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convo_cli.config.schema import GenerationSettings
from convo_cli.export.format import About, Format
from convo_cli.export.source import Source
from convo_cli.model.decoding.generator import Generator
from convo_cli.model.decoding.sampling_defaults import set_generation_defaults
from convo_cli.text.contract import save_encoder
from convo_cli.text.encoder import DialogueEncoder
from tests.gguf_models import model_of

ROOT = Path(__file__).parent.parent

ROWS = 5
"""Rows of the embeddings that have no token."""


def source_of(folder: Path, family: tuple[str, dict[str, Any]], encoder: DialogueEncoder) -> Source:
    """Return a random model whose norms and biases are random too, with its files in a folder."""
    model = model_of(*family, encoder, ROWS)
    set_generation_defaults(model, encoder, GenerationSettings())
    folder.mkdir(parents=True)
    model.config.save_pretrained(folder)
    save_encoder(encoder, folder, spiece=None)
    files = tuple(sorted(folder.iterdir()))
    return Source(folder, files, Generator(model, encoder, folder), None, None)


def opened(form: Format, source: Source, folder: Path, dtype: Any = "fp32") -> Any:
    """Write a source in a format, and open it in the format's runtime."""
    folder.mkdir(parents=True)
    form.write(source, folder, dtype, lambda event: None)
    return form.open_runtime(folder, None)


def greedy_by_torch(model: Any, ids: Sequence[int], num_tokens: int, stops: Any) -> list[int]:
    """Return the most likely ids, each from a pass without a cache."""
    reply = list[int]()
    with torch.inference_mode():
        while len(reply) < num_tokens:
            logits = model(torch.tensor([[*ids, *reply]])).logits  # (1, T, V)
            reply.append(int(logits[0, -1].argmax()))
            if reply[-1] in stops:
                break
    return reply


def nll_by_torch(model: Any, ids: Sequence[int], start: int) -> list[float]:
    """Return the nats of the ids from ``start`` on."""
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0, start - 1 : -1].double()  # (T, V)
    found = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[start:]), reduction="none")
    values: list[float] = found.tolist()
    return values


def differences(runtime: Any, source: Source, lengths: Sequence[int] = (1, 9, 100)) -> list[str]:
    """Return where a runtime differs from torch: greedy ids, and nll by more than 1e-4."""
    model, encoder = source.generator.model, source.generator.encoder
    found = list[str]()
    if list(runtime.stop_ids) != list(encoder.stop_ids):
        found.append(f"stop ids {runtime.stop_ids}")
    draw = np.random.default_rng(0)
    for length in lengths:
        ids = draw.integers(3, len(encoder.tokenizer), length).tolist()
        reply = runtime.greedy(ids, 16)
        expected = greedy_by_torch(model, ids, 16, encoder.stop_ids)
        if reply != expected:
            found.append(f"{length} tokens: {reply[:5]} instead of {expected[:5]}")
        start = max(1, length - 5)
        apart = np.abs(
            np.subtract(
                runtime.nll([*ids, *expected], start),
                nll_by_torch(model, [*ids, *expected], start),
            )
        )
        if apart.max() > 1e-4:
            found.append(f"{length} tokens: nll differs by {apart.max():.1e}")
    return found


def program_of_docs(section: str, about: About) -> str:
    """Return the Python program of a section of docs/exports.md, which the model card shows too."""
    text = (ROOT / "docs/exports.md").read_text(encoding="utf-8")
    body = text.split(f"\n## {section}\n", 1)[1].split("\n## ", 1)[0]
    program = body.split("```python\n", 1)[1].split("```", 1)[0]
    fields = {"max_length": 128, "template": "", "num_embeddings": 1, "base": ""}
    assert program in about.usage.format(stop='"<|end|>"', **fields)
    return program
