"""The exact reading of one line, which finds all that is wrong or odd in it: the slow lane of validation.

It reads the lines about which the fast lane has a doubt, and one line of each kind for the fast lane.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from convo_cli.config.schema import DataConfig, TrainOn
from convo_cli.data.dialogue import Role, has_target
from convo_cli.data.formats import LocatedTurn, shape_of, to_turns, unread_keys
from convo_cli.data.problems import Problem, ProblemSink, quoted
from convo_cli.data.strict_json import decode
from convo_cli.data.suspicions import misspelt, suspect_turns


class LineRules(NamedTuple):
    """What a line is judged by."""

    data_config: DataConfig
    train_on: TrainOn


@dataclass(frozen=True, slots=True)
class Skeleton:
    """What a dialogue is apart from what is said in it."""

    shape: str
    roles: tuple[Role, ...]
    num_untrained: int
    """Turns with ``"train": false``."""
    has_target: bool
    unread_keys: tuple[str, ...]


def read_line(raw: bytes, rules: LineRules, found: ProblemSink) -> tuple[Skeleton, list[LocatedTurn]] | None:
    """Read one line and report all that is wrong or odd in it; None where it is no dialogue."""
    value = decode(raw, found)
    turns = None if value is msgspec.UNSET else to_turns(value, rules.data_config, found)
    if turns is None:
        return None
    keys = list(unread_keys(value))
    for path, key in keys:
        if (meant := misspelt(key)) is not None:
            found(Problem("misspelt-key", f"the key {quoted(key)} is not read; did you mean {meant}?", path))
    spoken = [turn for _, turn in turns]
    skeleton = Skeleton(
        shape=shape_of(value) or "",
        roles=tuple(turn.role for turn in spoken),
        num_untrained=sum(not turn.is_trained for turn in spoken),
        has_target=has_target(spoken, rules.train_on),
        unread_keys=tuple(key for _, key in keys),
    )
    if not skeleton.has_target:
        found(Problem("no-target", f"no turn of the dialogue is learnt (train_on: {rules.train_on})"))
    for problem in suspect_turns(turns):
        found(problem)
    return skeleton, turns
