"""Stop requests to commands that take no steps."""

from __future__ import annotations

import os
import signal

import pytest

from tests.commands import start

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX signals")


@pytest.mark.parametrize("words", ["evaluate runs/tiny train.jsonl", "export runs/tiny out"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_other_commands_are_stopped_too(trained, words, number, code):
    process = start(trained, *words.split())
    try:
        assert b"(loading PyTorch takes a few seconds)" in process.stderr.readline()
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out, err.splitlines()[-1]) == (code, b"", b"stopped")
    assert not (trained / "out").exists()
