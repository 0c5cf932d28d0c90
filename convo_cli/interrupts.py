"""Interrupts: the exception that a stop request raises, and what library code may do to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from convo_cli.errors import StoppedError

if TYPE_CHECKING:
    from sys import UnraisableHookArgs


class Interrupt(KeyboardInterrupt):
    """Raised by a stop request inside `convo_cli.signals.StopRequest.interrupting`."""


def is_stopping(error: BaseException | None) -> bool:
    """Return whether this exception, which is being handled, comes from a stop request."""
    while error is not None:
        if isinstance(error, (KeyboardInterrupt, StoppedError)):
            return True
        error = error.__context__
    return False


def silencing_interrupts(
    hook: Callable[[UnraisableHookArgs], Any], is_stop_requested: Callable[[], bool]
) -> Callable[..., None]:
    """Return the hook without what an Interrupt leaves that Python cannot raise.

    That is an Interrupt in `__del__`, and the `__del__` of an object whose constructor an Interrupt
    has left, which lacks attributes, such as asyncio's loop.
    """

    def unless_interrupt(unraisable: UnraisableHookArgs) -> None:
        is_unfinished = (
            issubclass(unraisable.exc_type, AttributeError)
            and getattr(unraisable.object, "__name__", None) == "__del__"
            and is_stop_requested()
        )
        if not (is_unfinished or issubclass(unraisable.exc_type, Interrupt)):
            hook(unraisable)

    return unless_interrupt
