"""Generation of replies for chat, evaluation and the proof of an export."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from convo_cli.config.schema import GenerationSettings
from convo_cli.data.dialogue import Turn
from convo_cli.model.batches.attention import without_packed_attention
from convo_cli.model.decoding.decode_loop import decode
from convo_cli.model.decoding.failures import ComputingReply
from convo_cli.model.decoding.forward import Forward
from convo_cli.model.decoding.forward_choice import choose_forward
from convo_cli.model.decoding.sampling import TokenChooser, reply_randomness
from convo_cli.text.encoder import DialogueEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from convo_cli.runs.loaded import LoadedCheckpoint

_MAX_SLOTS = 16_384  # tokens of prompts and replies in a batch, with padding


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply of the model. ``stopped`` is False if it was cut at ``max_new_tokens``."""

    text: str
    ids: tuple[int, ...]
    stopped: bool
    num_dropped: int
    """Turns at the start of the history that did not fit."""


@dataclass(frozen=True, slots=True)
class Query:
    """A history as the prompt of a reply."""

    ids: Sequence[int]
    max_new_tokens: int
    """Most tokens of the reply: what was asked for, or what the window leaves."""
    num_dropped: int
    """Turns at the start of the history that did not fit."""


class Generator:
    """A model that answers histories rendered by its own encoder."""

    def __init__(
        self,
        model: PreTrainedModel,
        encoder: DialogueEncoder,
        folder: Path | None = None,
        loaded: LoadedCheckpoint | None = None,
    ) -> None:
        self.model = model
        self.encoder = encoder
        self.folder = folder
        """The folder from which the model was loaded, if any."""
        self.loaded = loaded
        """The checkpoint in that folder; None if it is not one of a run."""
        self._forward: tuple[object, Forward] | None = None

    @property
    def longest_reply(self) -> int:
        """Return the most tokens of a reply: half of the window."""
        return max(1, self.encoder.max_length // 2)

    def query(self, history: Sequence[Turn], settings: GenerationSettings) -> Query:
        """Return the prompt; the first turns are dropped if they leave no room for the reply.

        A quarter of the window is room enough, or ``max_new_tokens`` if that is less. A reply may
        fill what the history leaves, up to ``max_new_tokens`` and `longest_reply`. Raises DataError
        if the last message does not fit.
        """
        length = min(settings.max_new_tokens, self.longest_reply)
        reserved = min(length, max(1, self.encoder.max_length // 4))
        prompt = self.encoder.prompt(history, max_new_tokens=reserved)
        length = min(length, self.encoder.max_length - len(prompt.ids))
        return Query(prompt.ids, length, prompt.num_dropped)

    def replies(
        self,
        histories: Sequence[Sequence[Turn]],
        settings: GenerationSettings,
        *,
        seed: int = 0,
        on_reply: Callable[[int], None] = lambda done: None,
    ) -> list[Reply]:
        """Answer each history. A sampled reply depends only on the seed and its own index.

        Raises DataError if a last message does not fit, ModelError if the model fails to compute a
        reply.
        """
        queries = [self.query(history, settings) for history in histories]
        return self.answer(queries, settings, seed=seed, on_reply=on_reply)

    @torch.inference_mode()
    def answer(
        self,
        queries: Sequence[Query],
        settings: GenerationSettings,
        *,
        seed: int = 0,
        on_reply: Callable[[int], None] = lambda done: None,
    ) -> list[Reply]:
        """Answer prompts in batches; ``on_reply`` receives the number of finished replies."""
        ids: list[list[int]] = [[] for _ in queries]
        num_done = 0
        with self._answering() as forward:
            for batch in _batches(queries, forward.max_rows):
                for row, token in self._decode(
                    forward, [queries[index] for index in batch], settings, seed, batch
                ):
                    ids[batch[row]].append(token)
                num_done += len(batch)
                on_reply(num_done)
        return [self._reply(query, made) for query, made in zip(queries, ids, strict=True)]

    @torch.inference_mode()
    def stream(
        self,
        history: Sequence[Turn],
        settings: GenerationSettings,
        on_text: Callable[[str], None] = lambda text: None,
        *,
        seed: int | None = None,
        index: int = 0,
    ) -> Reply:
        """Answer one history. Without a seed, a sampled reply cannot be repeated.

        ``on_text`` receives the text as it becomes certain, in pieces that join to ``Reply.text``.
        An exception of ``on_text`` ends the reply and is passed on. Raises the errors of `replies`.
        """
        query = self.query(history, settings)
        seed = secrets.randbits(63) if seed is None else seed
        decoder, ids = self.encoder.stream(), list[int]()
        with self._answering() as forward:
            for _, token in self._decode(forward, [query], settings, seed, [index]):
                ids.append(token)
                if piece := decoder.push(token):
                    on_text(piece)
        if piece := decoder.finish():
            on_text(piece)
        return self._reply(query, ids)

    def _decode(
        self,
        forward: Forward,
        queries: Sequence[Query],
        settings: GenerationSettings,
        seed: int,
        indices: Sequence[int],
    ) -> Iterator[tuple[int, int]]:
        """Yield each new token of one batch with its row."""
        prompts = [query.ids for query in queries]
        lengths = [query.max_new_tokens for query in queries]
        chooser = TokenChooser(settings, prompts, [reply_randomness(seed, i) for i in indices])
        computing = ComputingReply(self.model)
        with computing:
            rows, logits = forward.start(prompts, max(lengths))
        yield from decode(rows, logits, chooser, lengths, self.encoder.stop_ids, computing)

    def _reply(self, query: Query, ids: Sequence[int]) -> Reply:
        stopped = bool(ids) and ids[-1] in self.encoder.stop_ids
        return Reply(self.encoder.decode(ids), tuple(ids), stopped, query.num_dropped)

    @contextmanager
    def _answering(self) -> Iterator[Forward]:
        """Put the model into evaluation mode, and return its forward passes."""
        was_training = self.model.training
        self.model.eval()
        try:
            with without_packed_attention(self.model):
                weights = _fingerprint(self.model)
                # While training, weights change between two replies.
                if self._forward is None or self._forward[0] != weights:
                    self._forward = None  # frees a copy of the old weights first
                    self._forward = weights, choose_forward(self.model, self.encoder)
                yield self._forward[1]
        finally:
            self.model.train(was_training)


def _fingerprint(model: PreTrainedModel) -> object:
    """Return a value that changes whenever weights are updated in place, moved or replaced."""
    return [
        (weight.data_ptr(), 0 if weight.is_inference() else weight._version)
        for weight in model.parameters()
    ]


def _batches(queries: Sequence[Query], max_rows: int) -> Iterator[list[int]]:
    """Yield batches of prompts of like length, as indices; longest first, so that memory fails
    early if it does.
    """
    batch: list[int] = []
    width = 0
    for index in sorted(range(len(queries)), key=lambda index: -len(queries[index].ids)):
        slots = max(width, len(queries[index].ids) + queries[index].max_new_tokens)
        if batch and (len(batch) == max_rows or slots * (len(batch) + 1) > _MAX_SLOTS):
            yield batch
            batch, slots = [], len(queries[index].ids) + queries[index].max_new_tokens
        batch.append(index)
        width = slots
    if batch:
        yield batch
