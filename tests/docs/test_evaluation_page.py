"""docs/evaluation.md has the metrics of the table, and every floor."""

from __future__ import annotations

from pathlib import Path

from convo_cli.evaluation.health.signs import THRESHOLDS
from convo_cli.metrics.floors import FLOORS
from convo_cli.metrics.metric_table import METRICS
from tests.docs.metrics_reference import with_tables

PAGE = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")


def test_the_tables_are_current():
    assert with_tables(PAGE) == PAGE, "run: make docs"


def test_every_metric_and_every_floor_has_its_row():
    for name in METRICS:
        assert PAGE.count(f"\n| `{name}` |") >= 2, name
    for name, meaning in FLOORS.items():
        assert f"\n| `{name}` | {meaning}" in PAGE, name


def test_every_limit_of_conversation_health_has_its_row():
    section = PAGE.partition("## Conversation health")[2].partition("\n## ")[0]
    rows = [line.split(" | ")[:3] for line in section.splitlines() if line.startswith("| `")]
    expected = [
        [f"| `{name}`", threshold.statistic, str(threshold.limit)]
        for name, threshold in THRESHOLDS.items()
    ]
    assert rows == expected
