"""Failures of the tokenizers library on a text, as errors that name the tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from convo_cli.errors import ModelError

_PANIC = "PanicException"
"""What a panic of Rust is in Python: a BaseException, of a type that nothing exports."""


@contextmanager
def no_panics(tokenizer: Any) -> Iterator[None]:
    """Raise ModelError where the block, which only encodes or decodes, panics or fails.

    A pattern that backtracks too much panics, a word without an unknown token fails with a bare Exception.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != _PANIC and type(error) is not Exception:
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"{tokenizer.name_or_path or 'the tokenizer'}: its tokenizer fails on a text ({reason})",
            hint="take the model from another source, or remove that text",
        ) from error
