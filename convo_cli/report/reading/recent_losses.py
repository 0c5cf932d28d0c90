"""Loss of each training file over the last steps of a log, whose values may be anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from convo_cli.report.reading.run_log import number_of


def recent_losses(steps: Iterable[Mapping[str, Any]]) -> list[float | None]:
    """Return the mean over the targets of each file in these records; empty without several files.

    None for a file without a target.
    """
    sums: dict[int, tuple[float, float]] = {}
    num_files = 0
    for record in steps:
        losses, counts = (record.get(key) for key in ("loss_by_file", "num_targets_by_file"))
        if not isinstance(losses, list) or not isinstance(counts, list):
            continue
        num_files = max(num_files, len(losses))
        for file, (one, number) in enumerate(zip(losses, counts, strict=False)):
            loss, count = number_of(one), number_of(number)
            if loss is not None and count is not None and count > 0:
                nll, total = sums.get(file, (0.0, 0.0))
                sums[file] = nll + loss * count, total + count
    means = {file: number_of(nll / total) for file, (nll, total) in sums.items()}
    return [means.get(file) for file in range(num_files)]
