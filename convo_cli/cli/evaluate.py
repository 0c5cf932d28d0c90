"""`convo evaluate`."""

from __future__ import annotations


def evaluate() -> None:
    """(being written)"""
