"""Exact reader of one line: it reports everything that is wrong or suspicious.

It reads the lines that `bulk` leaves out, and judges one line of each form for `bulk`. A repair
reads every line with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from convo_cli.data.checks.suspicions import suspect_turns
from convo_cli.data.dialogue import Role, has_target, is_excluded, only_calls
from convo_cli.data.problems import Problem, ProblemSink, no_target
from convo_cli.data.shapes.known_keys import misspelt
from convo_cli.data.shapes.turns import LineReading, read_value
from convo_cli.data.strict_json.decoder import decode
from convo_cli.wording import quoted

if TYPE_CHECKING:
    from convo_cli.config.schema import DataConfig, TrainOn


class LineRules(NamedTuple):
    """The settings that decide which problems a line has."""

    data_config: DataConfig
    train_on: TrainOn


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A dialogue without its texts: what the statistics count."""

    shape: str
    roles: tuple[Role, ...]
    """The role of every turn, without the definitions of tools."""
    num_calls: int
    """Turns with tool calls."""
    num_untrained: int
    """Turns with ``"train": false``."""
    num_reasoning: int
    num_with_references: int
    """Turns with other good replies."""
    is_excluded: bool
    has_target: bool
    unread_keys: tuple[tuple[str, str], ...]
    """The path and name of each key that is not read."""


def read_line(
    raw: bytes, rules: LineRules, found: ProblemSink
) -> tuple[Skeleton, LineReading] | None:
    """Read one line and report everything wrong or suspicious in it; None if it is not a dialogue.

    A dialogue that the data excludes from training is not checked further.
    """
    value = decode(raw, found)
    return None if value is msgspec.UNSET else read_decoded(value, rules, found)


def read_decoded(
    value: Any, rules: LineRules, found: ProblemSink
) -> tuple[Skeleton, LineReading] | None:
    """Read the decoded value of a line, like `read_line`."""
    reading = read_value(value, rules.data_config, found)
    if reading is None:
        return None
    turns = [turn for _, turn in reading.turns]
    skeleton = Skeleton(
        shape=reading.shape,
        roles=tuple(turn.role for turn in turns if turn.role != "tools"),
        num_calls=sum(turn.is_call for turn in turns),
        num_untrained=sum(not turn.is_trained for turn in turns if turn.role != "tools"),
        num_reasoning=sum(turn.has_reasoning for turn in turns),
        num_with_references=sum(bool(turn.references) for turn in turns),
        is_excluded=is_excluded(turns),
        has_target=has_target(turns, rules.train_on),
        unread_keys=tuple((path, key) for path, key, _ in reading.unread),
    )
    if skeleton.is_excluded:
        return skeleton, reading
    for path, key in skeleton.unread_keys:
        if (meant := misspelt(key)) is not None:
            message = f"the key {quoted(key)} is ignored; did you mean {quoted(meant)}?"
            found(Problem("misspelt-key", message, path))
    if not skeleton.has_target:
        found(no_target(rules.train_on, calls_only=only_calls(turns)))
    for problem in suspect_turns(reading.turns):
        found(problem)
    return skeleton, reading
