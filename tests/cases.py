"""What the quick tests leave to the slow ones, and where tests write their files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import hypothesis
import pytest

_ROOM = 8 * 2**30
"""Bytes that must be free; the tests write much less."""


def quick_first(cases: Iterable[Any], num_quick: int = 1) -> list[Any]:
    """Return the cases as parameters; all but the first ``num_quick`` are slow."""
    return [_case(case, number < num_quick) for number, case in enumerate(cases)]


def quick_only(cases: Iterable[Any], *quick: Any) -> list[Any]:
    """Return the cases as parameters; all but these are slow."""
    return [_case(case, case in quick) for case in cases]


def _case(case: Any, is_quick: bool) -> Any:
    """Return a case as one parameter, or as several if it is a tuple."""
    values = case if isinstance(case, tuple) else (case,)
    return pytest.param(*values, marks=[] if is_quick else [pytest.mark.slow])


def num_examples(num: int) -> int:
    """Return how many examples the profile takes where the thorough one takes ``num``."""
    return max(min(num, 10), num * hypothesis.settings.default.max_examples // 100)


def has_room_in_memory(folder: Path) -> bool:
    """Return whether a folder in memory can take the files and programs of the tests."""
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        return False
    system = os.statvfs(folder)
    return system.f_bavail * system.f_frsize > _ROOM and not system.f_flag & os.ST_NOEXEC
