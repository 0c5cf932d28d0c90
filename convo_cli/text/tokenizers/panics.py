"""Failures of the tokenizers library on a text, turned into errors that name the tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from convo_cli.errors import ModelError, first_line

_PANIC = "PanicException"
"""Name of the exception for a panic of Rust: a BaseException whose type is not exported."""


@contextmanager
def no_panics(tokenizer: Any) -> Iterator[None]:
    """Raise ModelError if the block, which only encodes or decodes, panics or fails.

    A pattern that backtracks too much panics. An unknown word fails with a bare Exception if the
    tokenizer has no unknown token.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != _PANIC and type(error) is not Exception:
            raise
        reason = first_line(error)
        raise ModelError(
            f"{tokenizer.name_or_path or 'the model'}: its tokenizer fails on a text ({reason})",
            hint="take the model from another source, or remove the text",
        ) from error
