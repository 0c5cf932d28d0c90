"""Generation of replies for chat, evaluation and the proof of an export."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from convo_cli.config.schema import GenerationSettings
from convo_cli.data.dialogue import Dialogue, Turn
from convo_cli.model.batches.attention import without_packed_attention
from convo_cli.model.decoding.branched_replies import BranchPlan
from convo_cli.model.decoding.decode_loop import decode
from convo_cli.model.decoding.failures import ComputingReply
from convo_cli.model.decoding.passes.forward_choice import ProvenForward, weights_version
from convo_cli.model.decoding.passes.kept_row import KeptRow
from convo_cli.model.decoding.queries import (
    Answers,
    DialogueReplies,
    Query,
    Reply,
    Start,
    begin,
    begin_branches,
    in_batches,
)
from convo_cli.model.decoding.sampling import TokenChooser, reply_randomness
from convo_cli.model.decoding.trace import Trace, TraceRecorder
from convo_cli.text.encoder import DialogueEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from convo_cli.runs.loaded import LoadedCheckpoint


__all__ = ["DialogueReplies", "Generator", "Reply"]


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
        """The checkpoint in that folder; None if the folder is no checkpoint of a run."""
        self._forward: tuple[object, ProvenForward] | None = None
        self._kept: KeptRow | None = None

    @property
    def longest_reply(self) -> int:
        """Return the limit of any reply in tokens: half of the window."""
        return max(1, self.encoder.max_length // 2)

    def query(self, history: Sequence[Turn], settings: GenerationSettings) -> Query:
        """Return the prompt; the first turns are dropped if they leave too little room to reply.

        At least a quarter of the window is reserved for the reply, or ``max_new_tokens`` if that is
        less. A reply may use all the room left, up to ``max_new_tokens`` and `longest_reply`.
        Raises DataError if the last message does not fit.
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
        on_token: Callable[[], None] = lambda: None,
    ) -> list[Reply]:
        """Answer prompts in batches; ``on_reply`` receives the number of finished replies.

        An exception of ``on_token``, which is called after each token of a batch, is passed on.
        """
        answers = Answers(queries, settings, seed, on_reply, on_token)
        with self.answering() as forward:
            max_rows = forward.max_rows if len(queries) > 1 else 1
            for batch in answers.batches(range(len(queries)), max_rows):
                self._fill(answers, batch, partial(begin, forward.passes))
        return [self._reply(query, ids) for query, ids in zip(queries, answers.ids, strict=True)]

    @torch.inference_mode()
    def all_replies(
        self,
        dialogues: Sequence[Dialogue],
        settings: GenerationSettings,
        *,
        seed: int = 0,
        on_reply: Callable[[int], None] = lambda done: None,
    ) -> list[DialogueReplies]:
        """Answer every trained assistant turn of each dialogue from its real history.

        The replies equal those of `replies` to the same histories, and the nll is that of the loss.
        Raises ProblemError if the template refuses a dialogue, and the errors of `replies`.
        """
        plan = BranchPlan(
            self.encoder, dialogues, lambda one, turn: self.query(one.turns[:turn], settings)
        )
        answers = Answers(plan.queries, settings, seed, on_reply)
        nll: list[NDArray[np.float64]] = []
        with self.answering() as forward:
            # In order, so that a dialogue's cache is freed after its last turn.
            branches = plan.read(self.model, forward, nll)
            for batch in in_batches(
                branches, lambda one: plan.queries[one.query].size, forward.max_rows
            ):
                parts = [(one.read, len(plan.queries[one.query].ids)) for one in batch]
                numbers = [one.query for one in batch]
                self._fill(answers, numbers, partial(begin_branches, forward.passes, parts))
            for alone in answers.batches(plan.alone, forward.max_rows):
                self._fill(answers, alone, partial(begin, forward.passes))
        pairs = iter(zip(plan.queries, answers.ids, strict=True))
        return [
            DialogueReplies(
                tuple(turns), tuple(self._reply(*pair) for pair in islice(pairs, len(turns))), each
            )
            for turns, each in zip(plan.turns, nll, strict=True)
        ]

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

        ``on_text`` receives each piece of the text once it is final; joined, the pieces are
        ``Reply.text``. An exception of ``on_text`` ends the reply and is passed on. Raises the
        errors of `replies`.

        The row of the reply is kept until the next call of this method or of `drop_kept_row`, and
        the next prompt is read from the first token that differs. After an exception, the row is
        kept only if it was KeyboardInterrupt.
        """
        recorder = TraceRecorder()
        query = self.query(history, settings)
        seed = secrets.randbits(63) if seed is None else seed
        decoder, ids = self.encoder.stream(), list[int]()
        with self.answering() as forward:
            kept = self._kept = self._kept or KeptRow(forward)
            tokens = self._decode(kept.begin, [query], settings, seed, [index], recorder)
            try:
                for _, token in tokens:
                    kept.append(ids[-1:])
                    ids.append(token)
                    if piece := decoder.push(token):
                        on_text(piece)
            except Exception:
                self.drop_kept_row()
                raise
        if piece := decoder.finish():
            on_text(piece)
        return self._reply(query, ids, recorder.finish(len(query.ids), kept.num_reused))

    def drop_kept_row(self) -> None:
        """Free the row of the last streamed reply."""
        self._kept = None

    def _fill(self, answers: Answers, numbers: Sequence[int], start: Start) -> None:
        """Answer the queries with these numbers in one batch."""
        queries = [answers.queries[number] for number in numbers]
        for row, token in self._decode(start, queries, answers.settings, answers.seed, numbers):
            answers.ids[numbers[row]].append(token)
            answers.on_token()
        answers.finish(len(numbers))

    def _decode(
        self,
        start: Start,
        queries: Sequence[Query],
        settings: GenerationSettings,
        seed: int,
        indices: Sequence[int],
        recorder: TraceRecorder | None = None,
    ) -> Iterator[tuple[int, int]]:
        """Yield each new token of one batch with its row."""
        lengths = [query.max_new_tokens for query in queries]
        randomness = [reply_randomness(seed, index) for index in indices]
        chooser = TokenChooser(settings, [query.ids for query in queries], randomness)
        computing = ComputingReply(self.model)
        with computing:
            rows, logits = start(queries, max(lengths))
        stop_ids = self.encoder.stop_ids
        record = None if recorder is None else recorder.record
        yield from decode(rows, logits, chooser, lengths, stop_ids, computing, record)

    def _reply(self, query: Query, ids: Sequence[int], trace: Trace | None = None) -> Reply:
        stopped = bool(ids) and ids[-1] in self.encoder.stop_ids
        return Reply(self.encoder.decode(ids), tuple(ids), stopped, query.num_dropped, trace)

    @contextmanager
    def answering(self) -> Iterator[ProvenForward]:
        """Put the model into evaluation mode, and yield its forward passes."""
        was_training = self.model.training
        self.model.eval()
        try:
            with without_packed_attention(self.model):
                weights = weights_version(self.model)
                # While training, weights change between two replies.
                if self._forward is None or self._forward[0] != weights:
                    self._forward = self._kept = None  # frees a copy of the old weights first
                    self._forward = weights, ProvenForward(self.model, self.encoder)
                yield self._forward[1]
        finally:
            self.model.train(was_training)
