"""CPU seconds of all metrics, floors and intervals, in one process without torch.

    python benchmarks/bench_metrics.py [FILE] --train TRAIN [--replies 3000]

FILE and TRAIN hold dialogues as JSON lists of texts, one a line; the defaults are DailyDialog's.
The reply to each assistant turn is that of another dialogue, so it is as long as a real one. Prints
the scores and intervals of these replies and of the floors, then the CPU seconds of each part. The
goal is 15 CPU seconds for 3,000 replies.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import work

from convo_cli.events import SampleReply
from convo_cli.metrics.floors import describe_floors, floor_replies, training_replies
from convo_cli.metrics.intervals import intervals_of, paired_intervals
from convo_cli.metrics.metric_table import METRICS, written
from convo_cli.metrics.reply_scores import measure, score_real_replies, scores_of


def main() -> None:
    """Measure once: the first call of a process is the one that a user waits for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    test = work.DAILYDIALOG / "test_noleak.jsonl"
    test = test if test.is_file() else work.FOLDER / "valid.jsonl"
    parser.add_argument("file", type=Path, nargs="?", default=test)
    parser.add_argument("--train", type=Path, default=work.FOLDER / "train.jsonl")
    parser.add_argument("--replies", type=int, default=3000)
    arguments = parser.parse_args()

    dialogues = [*_dialogues(arguments.file)]
    turns = [
        SampleReply(tuple(turns[:place]), turns[place][1], "", True)
        for turns in dialogues
        for place in range(1, len(turns), 2)
    ][: arguments.replies]
    shifted = [*turns[len(turns) // 2 :], *turns[: len(turns) // 2]]
    replies = [
        replace(turn, reply=other.reference) for turn, other in zip(turns, shifted, strict=True)
    ]
    seconds: dict[str, float] = {}
    with _measured("metrics", seconds):
        measured = {"replies": measure(replies)}
        real = score_real_replies(replies)
    with _measured("training replies", seconds):
        training = training_replies(_dialogues(arguments.train), "the training data")
    with _measured("metrics of the floors", seconds):
        floors = floor_replies(replies, training)
        measured |= {name: measure(answered) for name, answered in floors.items()}
    with _measured("intervals", seconds):
        intervals = {name: intervals_of(one) for name, one in measured.items()}
    total = sum(seconds.values())
    with _measured("a comparison with a second model (not in the total)", seconds):
        paired_intervals(replies, floors["echo"])

    print(f"{len(replies):,} replies of {arguments.file.name}, floors of {arguments.train.name}\n")
    print("metric".ljust(14) + "".join(name.rjust(26) for name in measured) + "real".rjust(10))
    for name in METRICS:
        row = name.ljust(14)
        for which, one in measured.items():
            cell = written(name, scores_of(one)[name])
            if name in intervals[which]:
                low, high = intervals[which][name]
                cell += f" [{written(name, low)}, {written(name, high)}]"
            row += cell.rjust(26)
        print(row + (written(name, real[name]).rjust(10) if name in real else ""))
    scores = scores_of(measured["replies"])
    of_floors = {name: one for name, one in intervals.items() if name != "replies"}
    print(f"\n{describe_floors(scores, of_floors, 'the training data')}\n")
    for name, value in seconds.items():
        print(f"{value:6.2f} CPU s  {name}")
    print(f"{total:6.2f} CPU s  in total")


def _dialogues(file: Path) -> Iterator[list[tuple[str, str]]]:
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            yield [
                (("user", "assistant")[place % 2], text)
                for place, text in enumerate(json.loads(line))
            ]


@contextmanager
def _measured(name: str, seconds: dict[str, float]) -> Iterator[None]:
    began = time.process_time()
    yield
    seconds[name] = time.process_time() - began


if __name__ == "__main__":
    main()
