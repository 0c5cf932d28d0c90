"""The package peft, which convo needs only for adapters; importing it takes a second."""

from __future__ import annotations

import importlib
import importlib.util

from convo_cli.errors import UsageError, first_line

MISSING = "LoRA needs the package peft"
INSTALL = 'pip install "convo-cli[adapters]"'


def is_peft_installed() -> bool:
    """Return whether peft can be found, without importing it."""
    return importlib.util.find_spec("peft") is not None


def require_peft() -> None:
    """Import peft; UsageError with the command that installs it."""
    try:
        importlib.import_module("peft")
    except ImportError as error:
        reason = f" ({first_line(error)})" if is_peft_installed() else ""
        raise UsageError(f"{MISSING}{reason}", hint=INSTALL) from None
