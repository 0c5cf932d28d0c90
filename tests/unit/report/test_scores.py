"""The verdict of a score considers its interval and which values are better."""

from __future__ import annotations

from dataclasses import replace

import pytest

from convo_cli.report.reading.run_log import Evaluation
from convo_cli.report.scores import verdict

PLAIN = Evaluation(1, 2.0, 7.4, {}, {}, {}, {}, None, None, (), has_health=True)


def judged(name, value, interval, **floors):
    return verdict(
        replace(
            PLAIN,
            metrics={name: value},
            intervals={name: interval} if interval else {},
            floors={floor: {name: score} for floor, score in floors.items()},
        ),
        name,
    )


@pytest.mark.parametrize(
    ("name", "value", "interval", "floors", "says"),
    [
        ("bleu-4", 3.0, (2.0, 4.0), {"echo": 1.9, "random": 0.5}, "beats every floor"),
        ("bleu-4", 3.0, (2.0, 4.0), {"echo": 2.1, "random": 0.5}, "does not beat echo"),
        ("bleu-4", 3.0, (2.0, 4.0), {"echo": 2.0, "random": 9.0}, "beats no floor"),
        ("bleu-4", 3.0, None, {"echo": 2.9}, "beats every floor"),
        ("stop-rate", 1.0, (1.0, 1.0), {"echo": 1.0}, "the best possible value"),
        ("distinct-1", 0.5, None, {"echo": 0.1}, "–"),
        ("bleu-4", 3.0, (2.0, 4.0), {}, "–"),
        ("of-another-version", 3.0, None, {"echo": 2.9}, "–"),
    ],
)
def test_a_verdict(name, value, interval, floors, says):
    assert judged(name, value, interval, **floors) == says
