"""Real replies as probes: their nll after their own turns and after those of another dialogue.

A model that uses what was said before finds a real reply less likely after the turns of another
dialogue. A model that repeats the user finds the first token of the user's turn likelier than that
of the real reply. Later tokens of a copy tell nothing: any good model continues a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch

from convo_cli.data.dialogue import Dialogue, Turn
from convo_cli.evaluation.likelihood import nll_by_groupings
from convo_cli.model.batches.batching import Batching
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.tokens.store import ASSISTANT_TARGET, Encoded, Example, TokenStore

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

_MAX_REPLIES = 64
"""Replies that are compared; more cost time and change the mean little."""

_Turns: TypeAlias = tuple[Turn, ...]
_FORMS = 3
"""Forms of each reply: after its own history, after another one, and as a copy of the user."""


@dataclass(frozen=True, slots=True)
class Probes:
    """Mean nll of real replies in nats per token, without the tokens that end them."""

    own_nll: float
    """After the reply's own history."""
    other_nll: float
    """After the history of another dialogue."""
    history_error: float
    """Standard error of the difference of the two."""
    first_nll: float
    """Of the first token of each reply."""
    echo_nll: float
    """Of the first token of the user's turn in its place."""
    echo_error: float
    """Standard error of the difference of the two."""
    num_replies: int

    @property
    def history_gain(self) -> float:
        """Return by how much a reply's own history lowers its nll; near 0 if it is ignored."""
        return self.other_nll - self.own_nll

    @property
    def echo_gain(self) -> float:
        """Return by how many nats the user's first token is likelier than the real reply's."""
        return self.first_nll - self.echo_nll


def probe(
    model: PreTrainedModel,
    encoder: DialogueEncoder,
    batching: Batching,
    dialogues: Sequence[Dialogue],
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[None]],
    *,
    max_slots: int,
) -> Probes | None:
    """Score at most 64 real replies in all forms; None with fewer than two of them."""
    encoded = list(_encoded_forms(encoder, dialogues))
    num = len(encoded)
    if num < 2:
        return None
    nothing = Dialogue((Turn("user", ""),))
    store = TokenStore.build((nothing, one) for one in chain.from_iterable(encoded))
    ends = 2 * _FORMS * num  # the group of all end tokens

    def groups_of(index: int, example: Example) -> NDArray[np.integer]:
        groups = np.full(len(example.input_ids), 2 * int(store.dialogue_of[index]))
        groups[int(np.argmax(example.targets == ASSISTANT_TARGET))] += 1
        return np.where(np.isin(example.input_ids, encoder.stop_ids), ends, groups)

    (found,) = nll_by_groupings(
        model, batching, store, (ASSISTANT_TARGET,), [(groups_of, ends + 1)], device, autocast,
        max_slots=max_slots,
    )  # fmt: skip
    nll = found.nll[:-1].reshape(num, _FORMS, 2)  # (replies, forms, rest or first)
    counts = found.counts[:-1].reshape(num, _FORMS, 2)
    own, other, _ = nll.sum(axis=2).T  # (replies,) each
    num_tokens = counts[:, 0].sum(axis=1)
    if not num_tokens.sum():
        return None
    own_nll, other_nll = (float(one.sum() / num_tokens.sum()) for one in (own, other))
    first, _, echo = nll[:, :, 1].T
    return Probes(
        own_nll=own_nll,
        other_nll=other_nll,
        # The standard error of a ratio of sums over replies.
        history_error=_error(other - own - (other_nll - own_nll) * num_tokens)
        / float(num_tokens.mean()),
        first_nll=float(first.mean()),
        echo_nll=float(echo.mean()),
        echo_error=_error(first - echo),
        num_replies=num,
    )


def _error(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def _encoded_forms(
    encoder: DialogueEncoder, dialogues: Sequence[Dialogue]
) -> Iterator[list[Encoded]]:
    """Yield the forms of each reply that fit the window and that the template accepts."""
    forms = list(_forms(dialogues))
    encoded = encoder.encode_all(
        [Dialogue(turns) for turns in chain.from_iterable(forms)], "last", long_turns="drop"
    )
    for begin in range(0, len(encoded), _FORMS):
        found = [one for one in encoded[begin : begin + _FORMS] if isinstance(one, Encoded)]
        counts = [_num_targets(one) for one in found]
        # A tokenizer may merge a reply with the text before it; then the forms differ.
        if len(found) == _FORMS and counts[0] == counts[1] and all(counts):
            yield found


def _num_targets(encoded: Encoded) -> int:
    return sum(int((one.targets == ASSISTANT_TARGET).sum()) for one in encoded.examples)


def _forms(dialogues: Sequence[Dialogue]) -> Iterator[tuple[_Turns, _Turns, _Turns]]:
    """Yield each reply after its own history, after another one, and as a copy of the user.

    The other history is equally long where possible: a model can use the number of turns alone.
    """
    places = [
        (number, index)
        for number, dialogue in enumerate(dialogues)
        for index in range(1, len(dialogue.turns))
        if _is_comparable(dialogue.turns, index)
    ]
    if len(places) > _MAX_REPLIES:
        chosen = np.linspace(0, len(places) - 1, _MAX_REPLIES).round().astype(int)
        places = [places[k] for k in chosen]
    places.sort(key=lambda place: (place[1], place[0]))
    for k, (number, index) in enumerate(places):
        nearest = chain(places[k + 1 :], places[:k][::-1])
        other = next((other for other in nearest if other[0] != number), None)
        if other is not None:
            turns, instead = dialogues[number].turns, dialogues[other[0]].turns
            history, reply = turns[:index], turns[index]
            copy = replace(reply, text=history[-1].text)
            yield (*history, reply), (*instead[: other[1]], reply), (*history, copy)


def _is_comparable(turns: Sequence[Turn], index: int) -> bool:
    """Return whether the turn is a trained reply to a user, without tools before it."""
    return (
        turns[index].is_reply
        and turns[index].is_trained
        and turns[index - 1].role == "user"
        and not any(turn.uses_tools for turn in turns[:index])
    )
