"""The charts of one run: losses, learning rate, gradient norm, speed, and scores with floors."""

from __future__ import annotations

from collections.abc import Iterator

from convo_cli.report.drawing.charts import Chart, Line, line_chart
from convo_cli.report.reading.run_log import RunLog
from convo_cli.report.thinning import Points, spread
from convo_cli.runs.logs.curves import smoothed

_FEW = 10
"""Steps below which single losses are drawn instead of their mean."""
_MAX_WHISKERS = 40
_COLUMNS_OF_SCORE = 40
_MAX_SCORES = 16
FLOOR_LABELS = {"constant": "constant", "echo": "echo", "random": "random"}
"""Names of the floors in charts and tables; others are shown as they are."""


def loss_chart(log: RunLog) -> Chart | None:
    """Return training and validation loss over steps, with the tokens seen below the steps."""
    training = log.curve("loss")
    lines = []
    if len(training) < _FEW:
        lines.append(Line("training", training, "train", has_dots=True))
    else:
        means = smoothed([loss for _, loss in training])
        steps = [step for step, _ in training]
        lines.append(Line("", training, "raw"))
        lines.append(Line("training", list(zip(steps, means, strict=True)), "train"))
    validation = log.evaluated("loss")
    lines.append(Line("validation", validation, "valid", has_dots=True))
    return line_chart("loss", "Loss, nats per target token", lines, second=_tokens(log))


def training_charts(log: RunLog) -> Iterator[Chart]:
    """Yield learning rate, gradient norm and tokens per second."""
    tokens = _tokens(log)
    named = (
        ("rate", "Learning rate", log.curve("learning_rate")),
        ("norm", "Gradient norm, before clipping", log.curve("grad_norm")),
        ("speed", "Tokens per second", log.speed()),
    )
    for key, title, points in named:
        line = Line("last", points, "train")
        if chart := line_chart(key, title, [line], second=tokens, from_zero=key != "norm"):
            yield chart


def score_charts(log: RunLog, first: str) -> Iterator[Chart]:
    """Yield a chart for each metric, ``first`` at the front, with its floors and intervals."""
    names = dict.fromkeys(name for one in log.evaluations.values() for name in one.metrics)
    ordered = sorted(names, key=lambda name: name != first)[:_MAX_SCORES]
    for number, name in enumerate(ordered):
        points = log.scores(name)
        steps = spread([int(step) for step, _ in points], _MAX_WHISKERS)
        whiskers = [
            (step, *log.evaluations[step].intervals[name])
            for step in steps
            if name in log.evaluations[step].intervals
        ]
        lines = [Line("model", points, "valid", has_dots=True, whiskers=whiskers)]
        lines += [
            Line(label, log.scores(name, floor), f"floor {floor}")
            for floor, label in {**FLOOR_LABELS, "real": "real"}.items()
        ]
        title = f"{name} of the replies"
        if chart := line_chart(
            f"score{number}", title, lines, from_zero=True, columns=_COLUMNS_OF_SCORE
        ):
            yield chart


def end_chart(log: RunLog) -> Chart | None:
    """Return the nll of the tokens that end the real replies beside that of the other targets."""
    lines = [
        Line("end", log.evaluated("end_nll"), "valid", has_dots=True),
        Line("other", log.evaluated("inner_nll"), "train", has_dots=True),
    ]
    title = "Nll of the tokens that end a reply, and of the other targets, nats"
    return line_chart("ends", title, lines, columns=_COLUMNS_OF_SCORE)


def _tokens(log: RunLog) -> tuple[str, Points] | None:
    points = log.curve("tokens_seen")
    return ("tokens", points) if points else None
