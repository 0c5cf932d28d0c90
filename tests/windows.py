"""All windows of a dialogue."""

from __future__ import annotations

from collections.abc import Sequence

from convo_cli.text.windows import Window, next_window


def plan(turn_lengths: Sequence[int], budget: int) -> list[Window]:
    """Return the windows that `cutting` takes if every turn fits."""
    windows: list[Window] = []
    while (fresh := windows[-1].stop if windows else 0) < len(turn_lengths):
        windows.append(next_window(turn_lengths, fresh, budget))
    return windows
