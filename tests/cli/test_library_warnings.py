"""Warnings that libraries write for developers."""

from __future__ import annotations

import subprocess
import sys

from tests.commands import environment

WARNING = """
import warnings
import convo_cli.__main__ as entry
entry.run = lambda: warnings.warn("use another argument", FutureWarning)
entry.main()
"""

LOGGED = """
import convo_cli.cli.app as app
def show(*arguments, **options):
    from transformers.utils import logging
    logging.get_logger("transformers.tokenization").warning("Token indices sequence length")
    logging.get_logger("transformers.tokenization").error("a failure")
app.app = show
app.main()
"""


def stderr_of(program: str, **changes: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program, "x"],
        env=environment(**changes),
        capture_output=True,
        text=True,
        check=True,
    ).stderr


def test_a_warning_of_python_is_silent_unless_it_is_asked_for():
    assert stderr_of(WARNING) == ""
    assert "use another argument" in stderr_of(WARNING, PYTHONWARNINGS="default")


def test_transformers_logs_only_errors():
    err = stderr_of(LOGGED)
    assert "Token indices" not in err
    assert "a failure" in err
