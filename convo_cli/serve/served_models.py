"""Served models: their ids, their prompts and their entries in the list of models."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from convo_cli.config.schema import GenerationSettings
from convo_cli.data.dialogue import Turn
from convo_cli.errors import UsageError, typeable
from convo_cli.model.decoding.generator import Generator
from convo_cli.model.decoding.queries import Query
from convo_cli.serve.jobs import Job
from convo_cli.text.contract import contract_sha256
from convo_cli.text.prompt import PromptTooLongError
from convo_cli.unseen import has_unseen

MAX_TURNS = 512
"""Most turns of a conversation that are rendered; those before them are dropped.

A foreign template is tried at each turn of a conversation of a new length, so its time grows with
the square of the number: 1 CPU second for 512 turns.
"""
_MAX_ID_CHARACTERS = 100
_MIN_CHARACTERS = 16_384
"""Least limit of the characters of a message."""


class Answering(Protocol):
    """The part of `convo_cli.serve.engine.Engine` that requests need."""

    def submit(self, job: Job) -> None: ...

    def cancel(self, job: Job) -> None: ...

    def drain(self, seconds: float) -> None: ...


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A model with its engine; ``defaults`` are the sampling settings of its folder."""

    id: str
    generator: Generator
    engine: Answering
    defaults: GenerationSettings
    created: int = field(default_factory=lambda: int(time.time()))

    def query(self, turns: Sequence[Turn], settings: GenerationSettings) -> Query:
        """Return the prompt of a conversation; turns at its start that cannot fit are dropped.

        The errors are those of `Generator.query`.
        """
        self._require_short(turns)
        most = min(MAX_TURNS, self.generator.encoder.max_length)
        head = 1 if turns and turns[0].role == "system" else 0
        # Each turn has at least one token, so more turns than the window has tokens need not be
        # rendered. The first turn decides with which roles a prompt may begin.
        num_skipped = max(0, len(turns) - head - most)
        while num_skipped and turns[head + num_skipped].role != turns[head].role:
            num_skipped -= 1
        query = self.generator.query([*turns[:head], *turns[head + num_skipped :]], settings)
        return Query(query.ids, query.max_new_tokens, query.num_dropped + num_skipped)

    def _require_short(self, turns: Sequence[Turn]) -> None:
        """Refuse a text that no window can hold before it is encoded, which needs far more memory.

        The limit holds for tokenizers that keep all characters. Others may encode any text as few
        tokens, so texts of ordinary length always pass.
        """
        limit = max(_MIN_CHARACTERS, self.generator.encoder.max_length * self._longest_token)
        longest = max(len(turn.text) for turn in turns)
        if longest > limit:
            raise PromptTooLongError(
                f"a message has {longest:,} characters, but the model's window of "
                f"{self.generator.encoder.max_length:,} tokens holds at most {limit:,}"
            )

    @cached_property
    def _longest_token(self) -> int:
        return max(map(len, self.generator.encoder.tokenizer.get_vocab()))

    def as_object(self) -> dict[str, Any]:
        """Return the entry in the list of models; ``convo`` is for the chat page."""
        loaded = self.generator.loaded
        return {
            "id": self.id,
            "object": "model",
            "created": self.created,
            "owned_by": "convo",
            "convo": {
                "window": self.generator.encoder.max_length,
                "longest_reply": self.generator.longest_reply,
                "contract": contract_sha256(self.generator.encoder),
                "sampling": self.defaults.model_dump(),
                "title": None if loaded is None else loaded.title,
            },
        }


def model_ids(sources: Sequence[str]) -> list[str]:
    """Return an id for each model: the name of its folder, or the hub id; all are different.

    UsageError for a folder whose name contains a line break.
    """
    ids = list[str]()
    for source in sources:
        name = _id_of(source)
        others = (f"{name}-{number}" for number in range(2, len(sources) + 2))
        ids.append(next(one for one in (name, *others) if one not in ids))
    return ids


def _id_of(source: str) -> str:
    if not Path(source).exists():
        return source  # a hub id
    path = Path(os.path.abspath(source))  # noqa: PTH100 - a link keeps its name
    name = path.name
    if path.parent.name == "checkpoints":
        name = f"{path.parent.parent.name}-{name}"
    if "".join(name.splitlines()) != name:
        raise UsageError(
            f"{source}: the name of this folder has a line break, so it cannot be a model's id",
            hint=f"rename it: mv {typeable(source)} model",
        )
    shown = "".join(
        "_" if not char.isprintable() or has_unseen(char) else char
        for char in name[:_MAX_ID_CHARACTERS]
    )
    return shown or "model"
