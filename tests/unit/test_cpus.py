"""The number of CPUs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from convo_cli.cpus import num_cpus


def test_cpus_are_those_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 3, 4, 5}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    for content, number in {
        "max 100000\n": 6,
        "250000 100000\n": 3,
        "50000 100000": 1,
        "": 6,
        "no": 6,
    }.items():
        monkeypatch.setattr(Path, "read_text", lambda self, content=content, **options: content)
        assert num_cpus() == number
