"""`convo validate-data`."""

from __future__ import annotations


def validate_data() -> None:
    """(being written)"""
