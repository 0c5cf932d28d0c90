"""Texts of other libraries' errors in convo's messages."""

from __future__ import annotations

import subprocess
import sys

import pytest

from convo_cli.errors import first_line


class Thing:
    def act(self):
        """Do nothing."""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("first\nsecond", "first"),
        ("invalid field 'n_head':\n    not a number\nmore", "invalid field 'n_head': not a number"),
        (f"Unrecognized class {Thing} for this model", "Unrecognized class Thing for this model"),
        (f"not a {dict}", "not a dict"),
        (f"{Thing()} is no number", "Thing is no number"),
        (f"{Thing.act} and {Thing().act}", "act and act"),
    ],
    ids=range(6),  # an address in a text would differ between processes
)
def test_a_library_error_is_one_line_without_python_reprs(text, shown):
    assert first_line(ValueError(text)) == shown


@pytest.mark.parametrize("text", ["<|end|> and <unk> are missing", "<0x0A>", "a < 3 and b > 4"])
def test_tokens_and_comparisons_stay(text):
    assert first_line(ValueError(text)) == text


def test_a_missing_key_is_a_sentence_and_an_error_without_text_has_its_type():
    assert first_line(KeyError("gelu_7")) == "there is no 'gelu_7'"
    assert first_line(AssertionError()) == "AssertionError"


_NO_MORE_THREADS = """
import resource, threading, time
from convo_cli.errors import refused_by_system
soft = 400 << 20
resource.setrlimit(resource.RLIMIT_AS, (soft, soft))
try:
    for _ in range(1000):
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
except RuntimeError as error:
    print(refused_by_system(error), flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of a process")
def test_a_thread_that_the_system_refuses_is_no_bug_of_convo():
    command = [sys.executable, "-c", _NO_MORE_THREADS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.startswith("the system starts no more threads"), done.stderr
