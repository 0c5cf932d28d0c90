"""Comparison of values that must be the same in all processes of a world."""

from __future__ import annotations

from collections.abc import Mapping

from convo_cli.errors import ConvoError
from convo_cli.world import World


def require_same_values(
    world: World, values: Mapping[str, str], error: type[ConvoError], hint: str
) -> None:
    """Raise the error in every process if one has another value than rank 0."""
    first, *others = world.gather(dict(values))
    for rank, other in enumerate(others, 1):
        for key in dict.fromkeys((*first, *other)):
            if first.get(key) != other.get(key):
                raise error(
                    f"{key} is {first.get(key)} in {world.name(0)}, but {other.get(key)} in "
                    f"{world.name(rank)}",
                    hint=hint,
                )
