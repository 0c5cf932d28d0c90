"""The first lines of a chat, one for each model, and short labels for several models."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePath

from convo_cli.cli.console import printable
from convo_cli.cli.views.chatting.wrapping import clusters, columns
from convo_cli.model.decoding.generator import Generator

_LABEL = "model"
_LONGEST_LABEL = 12  # columns, so that a reply has room on a narrow terminal


def banner_of(model: str, generator: Generator, saved_in: Path | None) -> str:
    """Describe a model in one line: step and score, template, window, and the session's file."""
    encoder, loaded = generator.encoder, generator.loaded
    parts = [f"{model} on {generator.model.device}"]
    if loaded is not None:
        loss = loaded.own.loss
        parts.append(loaded.title + ("" if loss is None else f", loss {loss:.3f}"))
    parts.append(f"template {encoder.template.name}")
    parts.append(f"window {encoder.max_length:,} tokens")
    if saved_in is not None:
        parts.append(f"saved in {shown_path(saved_in)}")
    return printable(" · ".join(parts)).replace("\n", " ")


def shown_path(path: Path) -> str:
    """Return a path for messages: the home directory is ~."""
    with suppress(ValueError, RuntimeError):  # elsewhere, or there is no home
        return str("~" / path.relative_to(Path.home()))
    return str(path)


def labels_of(models: Sequence[str]) -> list[str]:
    """Return a short label for each model, without spaces; no two are equal."""
    if len(models) == 1:
        return [_LABEL]
    paths = [PurePath(model).parts or (model,) for model in models]
    depth = 1
    while depth < max(map(len, paths)) and len({path[-depth:] for path in paths}) < len(paths):
        depth += 1
    names = [_short("/".join(path[-depth:])) for path in paths]
    counts = Counter(names)
    return [
        name if counts[name] == 1 else f"{number}-{name}" for number, name in enumerate(names, 1)
    ]


def _short(name: str) -> str:
    """Keep the end of a name, where those of checkpoints differ."""
    kept = list(clusters(re.sub(r"\s", "-", printable(name)))) or ["?"]
    if sum(map(columns, kept)) <= _LONGEST_LABEL:
        return "".join(kept)
    while sum(map(columns, kept)) >= _LONGEST_LABEL:
        kept.pop(0)
    return "…" + "".join(kept)
