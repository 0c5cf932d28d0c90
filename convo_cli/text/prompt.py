"""Prompts that leave room for the reply: the whole conversation if it fits, else its last turns.

Shapes: a prompt is a list of T ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from convo_cli.data.dialogue import Turn, begins_exchange
from convo_cli.errors import DataError
from convo_cli.text.cutting import earliest_start, is_folded, num_system_turns
from convo_cli.text.templates.pieces import Rendering
from convo_cli.wording import counted


class PromptTooLongError(DataError):
    """The last turn alone leaves too little room for a reply."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """Ids up to where the reply begins; ``num_dropped`` turns at the start did not fit."""

    ids: list[int]
    num_dropped: int


def fit_prompt(
    turns: Sequence[Turn],
    render: Callable[[Sequence[Turn]], Rendering | DataError],
    max_length: int,
    max_new_tokens: int,
) -> Prompt:
    """Return the prompt with as many of the last turns as leave room for ``max_new_tokens``.

    ``render`` renders turns up to where the reply begins. System turns are always kept. The first
    turn that is kept is a user turn, unless the conversation begins with another one or no user
    turn fits. Raises DataError if the template refuses the turns, PromptTooLongError if the last
    turn alone does not fit.
    """
    whole = render(turns)
    if isinstance(whole, DataError):
        raise whole
    room, num_system = max_length - max_new_tokens, num_system_turns(turns)
    system, spoken = turns[:num_system], turns[num_system:]
    if len(whole.input_ids) <= room or not spoken:
        return Prompt(whole.input_ids.tolist(), 0)
    bounds = whole.bounds(num_system)
    lengths = [stop - start for start, stop in pairwise(bounds)]
    opening = sum(lengths[len(spoken) :])
    # Llama 2 and Mistral write the system text into the first user turn, so a prompt without a user
    # turn would lose it.
    alone = render(spoken[:1]) if num_system else whole
    must_begin_with_user = is_folded(whole, alone, num_system)
    beginners = {"user", spoken[0].role}
    # Lengths in the whole conversation are an estimate, because a template may render a first turn
    # differently from a later one. So the remaining turns are rendered as a dialogue of their own,
    # as in training.
    earliest = earliest_start(lengths[: len(spoken)], room - bounds[0] - opening)
    begins = [k for k in range(len(spoken)) if begins_exchange(spoken, k)]
    candidates = [k for k in begins if k >= min(earliest, begins[-1])]
    # In order, but those that begin with another role come last.
    for first in sorted(candidates, key=lambda first: spoken[first].role not in beginners):
        if must_begin_with_user and spoken[first].role != "user":
            continue
        rendering = render([*system, *spoken[first:]])
        if isinstance(rendering, Rendering) and len(rendering.input_ids) <= room:
            return Prompt(rendering.input_ids.tolist(), first)
    repeated = whole.describe_head(num_system, is_folded=must_begin_with_user)
    free = max(0, room - bounds[0] - opening)
    what = "message" if free or not num_system else "system text"
    raise PromptTooLongError(
        f"the last message has {counted(int(lengths[len(spoken) - 1]), 'token')}, but the model's "
        f"window of {max_length} leaves only {free} beside a reply of {max_new_tokens}"
        + (f" and {repeated}" if repeated else ""),
        hint=f"shorten the {what}, or lower the reply length (max_new_tokens)",
    )
