"""`convo resume`."""

from __future__ import annotations


def resume() -> None:
    """(being written)"""
