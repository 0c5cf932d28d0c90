"""`convo init-config`."""

from __future__ import annotations


def init_config() -> None:
    """(being written)"""
