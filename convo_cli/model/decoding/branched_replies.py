"""Replies to every assistant turn of a dialogue, from one forward pass over the dialogue.

The model reads the whole dialogue, as in training. The first tokens of the cache are then the cache
of each turn's prompt, and the logits at the targets give their nll. A prompt that is not the
beginning of an example is answered separately: the template may render earlier turns differently,
or the dialogue may be longer than the window.

Shapes: N targets, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from convo_cli.data.dialogue import Dialogue
from convo_cli.data.held_out.references import reference_indices
from convo_cli.data.problems import ProblemError
from convo_cli.errors import DataError
from convo_cli.model.batches import loss
from convo_cli.model.decoding.failures import ComputingReply
from convo_cli.model.decoding.passes.forward import Pass
from convo_cli.model.decoding.passes.forward_choice import ProvenForward
from convo_cli.model.decoding.queries import Query
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.tokens.store import ASSISTANT_TARGET, Encoded, Example

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_CHUNK = 128  # positions whose logits are computed at once


@dataclass(frozen=True)
class Branch:
    """A prompt that is the beginning of an example, and the pass that read the example."""

    query: int
    """Index in ``BranchPlan.queries``."""
    read: Pass


class BranchPlan:
    """The prompts of all assistant turns of dialogues, and the example that each one begins."""

    def __init__(
        self,
        encoder: DialogueEncoder,
        dialogues: Sequence[Dialogue],
        query_of: Callable[[Dialogue, int], Query],
    ) -> None:
        """Encode the dialogues. ProblemError, with the line, if the template refuses one."""
        self.queries: list[Query] = []
        self.turns: list[list[int]] = []
        """Indices of each dialogue's turns with a query; the others do not fit the window."""
        self.examples: list[list[Example]] = []
        self._encoder = encoder
        self._queries_of: list[list[list[int]]] = []  # by dialogue and example
        self.alone: list[int] = []
        """Indices of the queries that begin no example."""
        for encoded in encoder.encode_all(dialogues, long_turns="split"):
            if not isinstance(encoded, Encoded):
                raise ProblemError(encoded)
            self.examples.append(list(encoded.examples))
            self._queries_of.append([[] for _ in encoded.examples])
        for number, dialogue in enumerate(dialogues):
            self.turns.append([])
            for turn in reference_indices(dialogue.turns):
                try:
                    query = query_of(dialogue, turn)
                except DataError:
                    continue
                self.turns[-1].append(turn)
                self._place(number, query)
                self.queries.append(query)

    def _place(self, dialogue: int, query: Query) -> None:
        ids = np.asarray(query.ids)
        for example, found in zip(self.examples[dialogue], self._queries_of[dialogue], strict=True):
            if len(example.input_ids) >= len(ids) and np.array_equal(
                example.input_ids[: len(ids)], ids
            ):
                found.append(len(self.queries))
                return
        self.alone.append(len(self.queries))

    def read(
        self, model: PreTrainedModel, forward: ProvenForward, nll: list[NDArray[np.float64]]
    ) -> Iterator[Branch]:
        """Read every example once: yield its branches, and append each dialogue's nll, (N,).

        If the model cannot branch, no branch is yielded and all queries are added to ``alone``.
        """
        computing = ComputingReply(model)
        for examples, queries_of in zip(self.examples, self._queries_of, strict=True):
            parts = [torch.zeros(0)]
            for example, queries in zip(examples, queries_of, strict=True):
                if not forward.can_branch:
                    self.alone += queries
                    batch = loss.pad([example], (ASSISTANT_TARGET,), self._encoder.pad_id)
                    with computing:
                        parts.append(loss.plain_nll(model, batch.to(model.device))[1].cpu())
                    continue
                targets = np.flatnonzero(example.targets[1:] == ASSISTANT_TARGET).tolist()
                ends = [len(self.queries[query].ids) - 1 for query in queries]
                with computing:
                    read = forward.passes.read(
                        example.input_ids.tolist(), sorted({*targets, *ends})
                    )
                    parts.append(_nll(read, example.input_ids, targets))
                yield from (Branch(query, read) for query in queries)
            nll.append(torch.cat(parts).double().numpy())


def _nll(read: Pass, ids: NDArray[np.int32], predictors: Sequence[int]) -> Tensor:  # (N,)
    """Return the nll in nats of the token after each of the positions."""
    parts = [torch.zeros(0)]
    for start in range(0, len(predictors), _CHUNK):
        chunk = predictors[start : start + _CHUNK]
        logits = read.logits(chunk).float()  # (n, V)
        labels = torch.tensor([int(ids[place + 1]) for place in chunk], device=logits.device)
        parts.append(cross_entropy(logits, labels, reduction="none").cpu())
    return torch.cat(parts)
