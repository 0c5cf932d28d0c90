"""The check of a store that was opened from files: no number in it leads out of the arrays, or is an id of no token."""

from __future__ import annotations

import numpy as np

from convo_cli.data.store import USER_TARGET, TokenStore
from convo_cli.errors import CheckpointError

_BLOCK = 1 << 20  # tokens checked at once


def require_sound(store: TokenStore, *, num_ids: int, max_length: int, num_files: int) -> None:
    """Raise CheckpointError naming the first column that no encoding gives.

    Ids are below ``num_ids``, examples at most ``max_length`` long and with a target, and the numbers of files below
    ``num_files``.
    """
    _require_order(store, max_length, num_files)
    begin = 0
    while begin < len(store):
        end = int(np.searchsorted(store.offsets, store.offsets[begin] + _BLOCK, side="right")) - 1
        end = max(end, begin + 1)
        part = slice(int(store.offsets[begin]), int(store.offsets[end]))
        # Read as unsigned, so that a negative id is a large one.
        if store.input_ids[part].view(np.uint32).max() >= num_ids:
            raise _unsound("input_ids", f"an id that is not one of the tokenizer's {num_ids:,}")
        targets = store.targets[part]
        starts = store.offsets[begin:end] - part.start
        if targets.max() > USER_TARGET:
            raise _unsound("targets", "a kind of target that there is not")
        if targets[starts].any() or not np.maximum.reduceat(targets, starts).all():
            raise _unsound("targets", "an example without a target, or with one at its first token")
        begin = end


def _require_order(store: TokenStore, max_length: int, num_files: int) -> None:
    offsets, dialogue_of, dialogues = store.offsets, store.dialogue_of, store.dialogues
    if len(store.targets) != store.num_tokens:
        raise _unsound("targets", f"{len(store.targets):,} numbers for {store.num_tokens:,} tokens")
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != store.num_tokens or not (offsets[1:] > offsets[:-1]).all():
        raise _unsound("offsets", "not ascending from 0 to the number of tokens")
    if len(store) and store.lengths.max() > max_length:
        raise _unsound("offsets", f"an example longer than {max_length:,} tokens")
    if len(dialogue_of) != len(store) or not (dialogue_of[1:] >= dialogue_of[:-1]).all():
        raise _unsound("dialogue_of", "not the dialogues of the examples in their order")
    if len(store) and not 0 <= dialogue_of[0] <= dialogue_of[-1] < len(dialogues):
        raise _unsound("dialogue_of", f"not among the {len(dialogues):,} dialogues")
    num_tokens, files = dialogues["num_tokens"], dialogues["file"]
    if not len(dialogues) or num_tokens.min() < 0 or dialogues["line"].min() < 1 or files.min() < 0:
        raise _unsound("dialogues", "none, or one with negative numbers")
    if files.max() >= num_files or dialogues["is_split"].view(np.uint8).max() > 1:
        raise _unsound("dialogues", "one of a file that is not read")
    if not np.array_equal(np.bincount(dialogue_of, minlength=len(dialogues)) > 0, num_tokens > 0):
        raise _unsound("dialogues", "one with examples that is left out, or one without that is not")


def _unsound(name: str, what: str) -> CheckpointError:
    return CheckpointError(f"{name} holds {what}")
