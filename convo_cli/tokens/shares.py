"""Shares of the training files in the steps of a run, for tables and logs."""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from convo_cli.config.schema import DataConfig
from convo_cli.tokens.order import Order
from convo_cli.tokens.store import TokenStore
from convo_cli.tokens.store_columns import blocks_of


class FileShare(TypedDict):
    """A training file and its part of the steps."""

    path: str
    weight: float
    num_dialogues: int
    num_tokens: int
    """Tokens of its dialogues, each once."""
    share: float
    """Its part of the tokens of all steps."""


def file_shares(
    data: DataConfig, store: TokenStore, order: Order, num_steps: int
) -> tuple[FileShare, ...]:
    """Return the shares of all training files; none for one file with a weight of 1."""
    if data.weights == (1,):
        return ()
    num = len(data.train)
    num_dialogues, num_tokens = np.zeros((2, num), np.int64)
    for _, records in blocks_of(store.dialogues):
        np.add.at(num_dialogues, records["file"], records["num_tokens"] > 0)
        np.add.at(num_tokens, records["file"], records["num_tokens"])
    of_steps = [0] * num
    for (file, _), total in zip(
        store.file_stretches, order.totals(store.lengths, num_steps), strict=True
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
