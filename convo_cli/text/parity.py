"""Proof that plain transformers renders a dialogue to the ids that convo trains on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from convo_cli.data.dialogue import Turn
from convo_cli.errors import DataError, ModelError
from convo_cli.text.bounded.rendering import render_ids
from convo_cli.text.templates.pieces import MovedReplyError
from convo_cli.wording import quoted

if TYPE_CHECKING:
    from convo_cli.text.encoder import DialogueEncoder


def prove_parity(encoder: DialogueEncoder, turns: Sequence[Turn]) -> None:
    """Raise ModelError with the first difference from transformers' own rendering.

    If every reply is an example of its own, the dialogue up to each reply is compared. Dialogues
    that the template refuses are left to `encode`, which knows their line.
    """
    try:
        _compare(encoder, turns, encoder.render_ids(turns))
    except MovedReplyError:
        context = [replace(turn, is_trained=False) for turn in turns]
        for stop in range(1, len(turns) + 1):
            if turns[stop - 1].role == "assistant" or stop == len(turns):
                part = [*context[: stop - 1], turns[stop - 1]]
                try:
                    ids = encoder.render_ids(part)
                except DataError:
                    continue
                _compare(encoder, part, ids)
    except DataError:
        return


def _compare(encoder: DialogueEncoder, turns: Sequence[Turn], ours: list[int]) -> None:
    # An independent path: transformers renders the dialogue with Jinja and encodes it in one call.
    theirs = render_ids(encoder.tokenizer, encoder.template.chat_template, turns)
    if ours == theirs:
        return
    pairs = enumerate(zip(ours, theirs, strict=False))
    where = next((index for index, (one, other) in pairs if one != other), len(ours))
    here, there = (
        " ".join(encoder.tokenizer.convert_ids_to_tokens(list(ids)[where : where + 4]))
        for ids in (ours, theirs)
    )
    raise ModelError(
        f"template {encoder.template.name} does not fit this tokenizer: from token {where} "
        f"on, convo would train on {quoted(here)}, but transformers' apply_chat_template "
        f"gives {quoted(there)}",
        hint="set dialogue.template: turns",
    )
