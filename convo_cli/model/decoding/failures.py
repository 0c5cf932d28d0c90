"""Exceptions of a model's own code, as opposed to those of convo and its callers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convo_cli.errors import ModelError, first_line, is_out_of_memory

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
