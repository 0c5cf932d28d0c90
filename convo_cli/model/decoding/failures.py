"""Exceptions of a model's own code, as opposed to those of convo and its callers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convo_cli.errors import (
    ConvoError,
    ModelError,
    OutOfMemoryError,
    first_line,
    is_out_of_memory,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CANNOT_COMPUTE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""Exceptions that torch and transformers raise if the numbers of a config are inconsistent."""


class ComputingReply:
    """A reusable context manager that turns exceptions of a model's code into ModelError.

    Out-of-memory errors are passed on.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        if isinstance(error, CANNOT_COMPUTE) and not is_out_of_memory(error):
            raise ModelError(
                f"{type(self._model).__name__} cannot compute a reply ({first_line(error)})",
                hint="check the numbers in its config.json; if the scores are not finite, try "
                "--temperature 0",
            ) from error


def failure_of(error: Exception) -> ConvoError | None:
    """Return the error of a reply that could not be computed; None for a fault of convo."""
    if isinstance(error, ConvoError):
        # Its traceback holds the tensors of the failed pass, in a cycle that is freed late.
        error.__cause__ = error.__context__ = None
        return error.with_traceback(None)
    if is_out_of_memory(error):
        return OutOfMemoryError(
            "not enough memory for this reply", hint="ask for a shorter one, or try again later"
        )
    return None


def not_finite() -> ModelError:
    """Return the error of a reply whose next token cannot be sampled."""
    return ModelError("the scores of the next token are not finite", hint="try temperature 0")
