"""Ids of texts by the tokenizer of a folder, which plain transformers opens in its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Timer
from typing import Any

from convo_cli.errors import CheckpointError

_SCRIPT = Path(__file__).with_name("plain_process.py")
# The script gets the import path of this process without convo, and nothing from the working
# folder.
_START = (
    "import runpy, sys; sys.path[:] = sys.argv[2:]; sys.modules['convo_cli'] = None; "
    "runpy.run_path(sys.argv[1], run_name='__main__')"
)
_ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",  # the checkpoint's replies are computed on the CPU too
    "HF_HUB_OFFLINE": "1",
    "MALLOC_ARENA_MAX": "2",  # an arena for each thread would count towards the memory limit
    "TRANSFORMERS_OFFLINE": "1",
}
_SECONDS = 600.0
_SECONDS_PER_BYTE = 6e-7  # ten minutes for each GB of weights
_MEMORY_BYTES = 4 * 2**30
_MEMORY_PER_BYTE = 3  # of weights


def plain_ids(folder: Path, texts: Sequence[str]) -> list[list[int]] | None:
    """Return ids of texts by the folder's tokenizer; None if the process could not open it."""
    try:
        found = _ask(folder, {"texts": list(texts)})
    except CheckpointError:
        return None
    ids: list[list[int]] = found["texts"]
    return ids


def _ask(folder: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """Send a request to a new process, and return its answer."""
    num_bytes = sum(file.stat().st_size for file in folder.iterdir())
    bounds = {"folder": str(folder), "memory_bytes": _MEMORY_BYTES + _MEMORY_PER_BYTE * num_bytes}
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _START, str(_SCRIPT), *sys.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **_ENVIRONMENT},
        start_new_session=True,  # so that Ctrl-C reaches only this process
    ) as process:
        assert process.stdin is not None, "it was opened as a pipe"
        assert process.stdout is not None, "it was opened as a pipe"
        timer = Timer(_SECONDS + _SECONDS_PER_BYTE * num_bytes, process.kill)
        timer.start()
        try:
            with suppress(BrokenPipeError):  # its exit code says why
                process.stdin.write(json.dumps({**request, **bounds}).encode() + b"\n")
                process.stdin.flush()
            line = process.stdout.readline()
        finally:
            timer.cancel()
            process.kill()
            with suppress(BrokenPipeError):
                process.stdin.close()
    if not line.endswith(b"\n"):
        raise CheckpointError(
            "nothing was exported: the process that opens the export with plain transformers ended "
            f"without an answer (exit code {process.returncode})",
            hint="free some memory and export again",
        )
    found: dict[str, Any] = json.loads(line)
    if error := found.get("error"):
        raise CheckpointError(f"plain transformers cannot open the export ({error[:500]})")
    return found
