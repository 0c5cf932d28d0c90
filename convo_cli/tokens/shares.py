"""Shares of the training files in the steps of a run, for tables and logs."""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from convo_cli.config.schema import DataConfig
from convo_cli.tokens.order import Order
from convo_cli.tokens.store import TokenStore


class FileShare(TypedDict):
    """A training file and its part of the steps."""

    path: str
    weight: float
    num_dialogues: int
    num_tokens: int
    """Tokens of its dialogues, each once."""
    share: float
    """Its part of the tokens of all steps."""


def parts_of(store: TokenStore) -> list[tuple[int, int]]:
    """Return file and number of examples of each stretch of examples from one file.

    A file that an old config lists twice may have two.
    """
    files = store.dialogues["file"][store.dialogue_of]
    ends = np.flatnonzero(np.diff(files, append=-2)) + 1
    return list(zip(files[ends - 1].tolist(), np.diff(ends, prepend=0).tolist(), strict=True))


def file_shares(
    data: DataConfig, store: TokenStore, order: Order, num_steps: int
) -> tuple[FileShare, ...]:
    """Return the shares of all training files; none for one file with a weight of 1."""
    if data.weights == (1,):
        return ()
    num = len(data.train)
    files, tokens = store.dialogues["file"], store.dialogues["num_tokens"]
    num_dialogues = np.bincount(files[tokens > 0], minlength=num)
    num_tokens = np.zeros(num, np.int64)
    np.add.at(num_tokens, files, tokens)
    of_steps = [0] * num
    for (file, _), total in zip(
        parts_of(store), order.totals(store.lengths, num_steps), strict=True
    ):
        of_steps[file] += total
    return tuple(
        FileShare(
            path=path,
            weight=data.weights[file],
            num_dialogues=int(num_dialogues[file]),
            num_tokens=int(num_tokens[file]),
            share=of_steps[file] / sum(of_steps),
        )
        for file, path in enumerate(data.train)
    )
