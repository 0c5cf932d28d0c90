"""The process that trains a tokenizer ends with the process that waits for it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

PARENT = """
import random
from convo_cli.text.tokenizers.training_process import train_in_process
random.seed(0)
words = ["".join(random.choices("abcdefghij", k=9)) for _ in range(400_000)]
train_in_process(words, {"vocab_size": 8000, "model_type": "bpe", "minloglevel": 2})
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the system ends the process on Linux only")
def test_a_killed_parent_leaves_no_process_behind():
    parent = subprocess.Popen([sys.executable, "-c", PARENT])
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    deadline = time.monotonic() + 60
    while not (child := children.read_text().strip()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert child, "the parent did not start to train"
    imported = Path(f"/proc/{child}/maps")
    while "sentencepiece" not in imported.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(2)  # it reads the words and trains
    parent.kill()
    parent.wait()
    time.sleep(1)
    state = Path(f"/proc/{child}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"
