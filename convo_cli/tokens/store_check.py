"""Checks of a token store from files: indices are in range, and ids are those of the tokenizer."""

from __future__ import annotations

import numpy as np

from convo_cli.errors import CheckpointError
from convo_cli.tokens.store import USER_TARGET, TokenStore

_BLOCK = 1 << 20  # tokens checked at once


def require_valid_store(
    store: TokenStore, *, num_ids: int, max_length: int, num_files: int
) -> None:
    """Raise a CheckpointError that names the first column with an impossible value.

    Ids must be below ``num_ids``, and file numbers below ``num_files``. Every example must have a
    target, and at most ``max_length`` tokens.
    """
    _require_order(store, max_length, num_files)
    begin = 0
    while begin < len(store):
        end = int(np.searchsorted(store.offsets, store.offsets[begin] + _BLOCK, side="right")) - 1
        end = max(end, begin + 1)
        part = slice(int(store.offsets[begin]), int(store.offsets[end]))
        # As unsigned numbers, so that a negative id is a large one.
        if store.input_ids[part].view(np.uint32).max() >= num_ids:
            raise _invalid("input_ids", f"an id beyond the tokenizer's {num_ids:,}")
        targets = store.targets[part]
        starts = store.offsets[begin:end] - part.start
        if targets.max() > USER_TARGET:
            raise _invalid("targets", "a value that is no target kind")
        if targets[starts].any() or not np.maximum.reduceat(targets, starts).all():
            raise _invalid("targets", "an example without a target, or with one at its first token")
        begin = end


def _require_order(store: TokenStore, max_length: int, num_files: int) -> None:
    offsets, dialogue_of, dialogues = store.offsets, store.dialogue_of, store.dialogues
    if len(store.targets) != store.num_tokens:
        raise _invalid("targets", f"{len(store.targets):,} numbers for {store.num_tokens:,} tokens")
    if (
        not len(offsets)
        or offsets[0] != 0
        or offsets[-1] != store.num_tokens
        or not (offsets[1:] > offsets[:-1]).all()
    ):
        raise _invalid("offsets", "do not ascend from 0 to the number of tokens")
    if len(store) and store.lengths.max() > max_length:
        raise _invalid("offsets", f"an example longer than {max_length:,} tokens")
    if len(dialogue_of) != len(store) or not (dialogue_of[1:] >= dialogue_of[:-1]).all():
        raise _invalid("dialogue_of", "do not match the order of the examples")
    if len(store) and not 0 <= dialogue_of[0] <= dialogue_of[-1] < len(dialogues):
        raise _invalid("dialogue_of", f"an index beyond the {len(dialogues):,} dialogues")
    num_tokens, files = dialogues["num_tokens"], dialogues["file"]
    if not len(dialogues) or num_tokens.min() < 0 or dialogues["line"].min() < 1 or files.min() < 0:
        raise _invalid("dialogues", "none, or a number below its minimum")
    if files.max() >= num_files or dialogues["is_split"].view(np.uint8).max() > 1:
        raise _invalid("dialogues", "a file beyond the data files, or an invalid flag")
    if not np.array_equal(np.bincount(dialogue_of, minlength=len(dialogues)) > 0, num_tokens > 0):
        raise _invalid("dialogues", "numbers of tokens that do not match the examples")


def _invalid(name: str, what: str) -> CheckpointError:
    return CheckpointError(f"{name}: {what}")
