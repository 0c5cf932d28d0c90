"""Replies to the same validation dialogues over a run, read from samples.jsonl."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from convo_cli.report.thinning import spread
from convo_cli.storage.atomic import disk_errors
from convo_cli.storage.files import only_regular, read_lines

MAX_DIALOGUES = 4
MAX_STEPS = 6
_MAX_INDEX = 32
"""Only the first replies of an evaluation are compared between runs."""


class Turn(msgspec.Struct, frozen=True):
    """A turn before a reply."""

    role: str = ""
    content: str = ""


class _Head(msgspec.Struct):
    step: int
    index: int


class Sample(msgspec.Struct, frozen=True):
    """One line of samples.jsonl."""

    step: int
    index: int
    reply: str
    reference: str = ""
    history: tuple[Turn, ...] = ()
    stopped: bool = True

    @property
    def dialogue(self) -> tuple[tuple[Turn, ...], str]:
        """Return history and real reply, which identify the dialogue, also across runs."""
        return self.history, self.reference


@dataclass(frozen=True, slots=True)
class RepliesOverTime:
    """Replies of one run to one dialogue, ascending by step."""

    history: tuple[Turn, ...]
    reference: str
    replies: tuple[Sample, ...]

    @property
    def different(self) -> list[tuple[str, Sample]]:
        """Return each reply that differs from the one before, with the steps that gave it."""
        runs: list[list[Sample]] = []
        for sample in self.replies:
            if runs and (sample.reply, sample.stopped) == (runs[-1][0].reply, runs[-1][0].stopped):
                runs[-1].append(sample)
            else:
                runs.append([sample])
        return [
            (
                f"step {run[0].step:,}"
                if len(run) == 1
                else f"steps {run[0].step:,} to {run[-1].step:,}",
                run[0],
            )
            for run in runs
        ]


def replies_over_time(samples: Path, always: Sequence[int]) -> list[RepliesOverTime]:
    """Return the replies to the first dialogues at a few steps: first, last, ``always``, others.

    Unreadable lines are skipped; a missing file has no replies.
    """
    steps = sorted({head.step for head in _heads(samples)})
    chosen = set(spread(steps, MAX_STEPS, always))
    found: dict[tuple[tuple[Turn, ...], str], dict[int, Sample]] = {}
    for sample in _samples(samples, chosen, MAX_DIALOGUES):
        found.setdefault(sample.dialogue, {})[sample.step] = sample
    return [
        RepliesOverTime(history, reference, tuple(by_step[step] for step in sorted(by_step)))
        for (history, reference), by_step in list(found.items())[:MAX_DIALOGUES]
    ]


def replies_at(samples: Path, step: int | None) -> list[Sample]:
    """Return the first replies of the evaluation at ``step``, or of the last one before it.

    A ``step`` of None means the last evaluation.
    """
    steps = {head.step for head in _heads(samples) if step is None or head.step <= step}
    return list(_samples(samples, {max(steps)}, _MAX_INDEX)) if steps else []


def _heads(path: Path) -> Iterator[_Head]:
    decoder = msgspec.json.Decoder(_Head)
    for line in _lines(path):
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            yield decoder.decode(line)


def _samples(path: Path, steps: Iterable[int], end: int) -> Iterator[Sample]:
    heads, whole = msgspec.json.Decoder(_Head), msgspec.json.Decoder(Sample)
    for line in _lines(path):
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            head = heads.decode(line)
            if head.step in steps and 0 <= head.index < end:
                yield whole.decode(line)


def _lines(path: Path) -> Iterator[bytes]:
    with (
        disk_errors(path),
        suppress(FileNotFoundError),
        open(path, "rb", opener=only_regular) as file,
    ):
        yield from (line for line in read_lines(file) if line.endswith(b"\n"))
