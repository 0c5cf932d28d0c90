"""Training masks in the data, on a turn or a whole dialogue, in the spellings of different tools.

    "train": false    "weight": 0 (OpenAI, Mistral, Together)    "loss": false (ms-swift, ChatGLM3)

all mean "not trained on"; true, 1 and null are the default. Any other weight is refused, never
rounded. Names whose meaning differs between tools are refused too: ``"mask": 1`` means "trained on"
in some and "hidden" in others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from convo_cli.data.problems import kind_of, member
from convo_cli.data.shapes.known_keys import TRAIN_KEYS, may_say_training, misspelt, says_training
from convo_cli.wording import quoted

Refuse = Callable[[str, str, str], None]
"""Reports a problem, given its code, path and message."""


def stated_training(value: Mapping[str, Any], path: str, refuse: Refuse) -> bool | None:
    """Return whether the object states that it is trained on; None if it states nothing."""
    stated: dict[str, bool] = {}
    for key, item in value.items():
        if item is None:
            continue
        if key in TRAIN_KEYS:
            if isinstance(item, (bool, int, float)) and item in (0, 1):
                stated[key] = item == 1
            else:
                message = f'"{key}" must be true, false, 1 or 0, not {_shown(item)}'
                refuse("train-value", member(path, key), message)
        elif says_training(key) or (isinstance(item, bool) and may_say_training(key)):
            meant = misspelt(key)
            if meant in TRAIN_KEYS:
                message = f"unknown key {quoted(key)}; did you mean {quoted(meant)}?"
            else:
                message = (
                    f"the key {quoted(key)} is refused, because its meaning differs between tools"
                )
            refuse("train-key", member(path, key), message)
    if len(set(stated.values())) > 1:
        values = ", ".join(f'"{key}" is {_shown(value[key])}' for key in stated)
        refuse("train-conflict", path, f"the keys contradict each other: {values}")
    return next(iter(stated.values()), None)


def _shown(item: Any) -> str:
    if isinstance(item, str):
        return quoted(item)
    is_number = isinstance(item, (int, float)) and not isinstance(item, bool)
    return str(item) if is_number else kind_of(item)
