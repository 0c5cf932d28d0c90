"""Checks of a token store from files: indices are in range, and ids are those of the tokenizer."""

from __future__ import annotations

import numpy as np

from convo_cli.errors import CheckpointError
from convo_cli.tokens.store import USER_TARGET, TokenStore
from convo_cli.tokens.store_columns import blocks_of


def require_valid_store(
    store: TokenStore, *, num_ids: int, max_length: int, num_files: int
) -> None:
    """Raise a CheckpointError that names the first column with an impossible value.

    Ids must be below ``num_ids``, and file numbers below ``num_files``. Every example must have a
    target, and at most ``max_length`` tokens.
    """
    _require_order(store, max_length, num_files)
    for examples, tokens in store.token_blocks():
        # As unsigned numbers, so that a negative id is a large one.
        if store.input_ids[tokens].view(np.uint32).max() >= num_ids:
            raise _invalid("input_ids", f"an id beyond the tokenizer's {num_ids:,}")
        targets = store.targets[tokens]
        lengths = store.lengths[examples]
        starts = np.cumsum(lengths) - lengths
        if targets.max() > USER_TARGET:
            raise _invalid("targets", "a value that is no target kind")
        if targets[starts].any() or not np.maximum.reduceat(targets, starts).all():
            raise _invalid("targets", "an example without a target, or with one at its first token")


def _require_order(store: TokenStore, max_length: int, num_files: int) -> None:
    dialogue_of, num_dialogues = store.dialogue_of, len(store.dialogues)
    if len(store.targets) != store.num_tokens:
        raise _invalid("targets", f"{len(store.targets):,} numbers for {store.num_tokens:,} tokens")
    if len(store) and store.lengths.max() > max_length:
        raise _invalid("offsets", f"an example longer than {max_length:,} tokens")
    if len(dialogue_of) != len(store) or not (dialogue_of[1:] >= dialogue_of[:-1]).all():
        raise _invalid("dialogue_of", "do not match the order of the examples")
    if len(store) and not 0 <= dialogue_of[0] <= dialogue_of[-1] < num_dialogues:
        raise _invalid("dialogue_of", f"an index beyond the {num_dialogues:,} dialogues")
    if not num_dialogues:
        raise _invalid("dialogues", "none")
    for begin, records in blocks_of(store.dialogues):
        num_tokens, files = records["num_tokens"], records["file"]
        if num_tokens.min() < 0 or records["line"].min() < 1 or files.min() < 0:
            raise _invalid("dialogues", "a number below its minimum")
        if files.max() >= num_files or records["is_split"].view(np.uint8).max() > 1:
            raise _invalid("dialogues", "a file beyond the data files, or an invalid flag")
        own = store.examples_between(begin, begin + len(records))
        num_examples = np.bincount(dialogue_of[own.start : own.stop] - begin, None, len(records))
        if not np.array_equal(num_examples > 0, num_tokens > 0):
            raise _invalid("dialogues", "numbers of tokens that do not match the examples")


def _invalid(name: str, what: str) -> CheckpointError:
    return CheckpointError(f"{name}: {what}")
