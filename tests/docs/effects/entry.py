"""Entries of the table of effects: a key, its values, and a check of how their runs differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Check = Callable[..., None]


@dataclass(frozen=True)
class Effect:
    """``check`` gets one `Observed` for each value; it fails if the key is ignored."""

    key: str
    values: tuple[Any, ...]
    says: str
    """The effect in one sentence."""
    seen_in: str
    """What the check looks at."""
    check: Check
    given: Mapping[str, Any] = field(default_factory=dict)
    """Settings that all runs of this entry share, because the key matters only with them."""

    @property
    def settings(self) -> list[dict[str, Any]]:
        """The settings of each run; they differ only in this key."""
        return [{**self.given, self.key: value} for value in self.values]


EFFECTS: list[Effect] = []


def effect(
    key: str, *values: Any, seen_in: str, given: Mapping[str, Any] | None = None
) -> Callable[[Check], Check]:
    """Add the decorated check to the table; its docstring is the effect in one sentence."""

    def enter(check: Check) -> Check:
        says = " ".join((check.__doc__ or "").split())
        EFFECTS.append(Effect(key, values, says, seen_in, check, given or {}))
        return check

    return enter
