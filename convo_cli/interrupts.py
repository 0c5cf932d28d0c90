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


def silencing_interrupts(hook: Callable[[UnraisableHookArgs], Any]) -> Callable[..., None]:
    """Return the hook without an Interrupt that Python cannot raise, for example in `__del__`."""

    def unless_interrupt(unraisable: UnraisableHookArgs) -> None:
        if not issubclass(unraisable.exc_type, Interrupt):
            hook(unraisable)

    return unless_interrupt
