"""What the data says about training, on a turn or on a whole dialogue; tools spell it in different ways.

    "train": false      "weight": 0 (OpenAI, Mistral, Together)      "loss": false (ms-swift, ChatGLM3)

all mean that it is not trained on; true, 1 and null are the default. Other weights are refused, never rounded, and so
are names whose meaning differs between tools: ``mask`` is 1 for "trained on" here and for "hidden" there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from convo_cli.data.known_keys import TRAIN_KEYS, misspelt, says_training
from convo_cli.data.problems import kind_of, member, quoted

Refuse = Callable[[str, str, str], None]
"""Takes the code, path and message of a problem."""


def stated_training(value: Mapping[str, Any], path: str, refuse: Refuse) -> bool | None:
    """Whether the object says that it is trained on; None where it says nothing."""
    stated: dict[str, bool] = {}
    for key, item in value.items():
        if item is None:
            continue
        if key in TRAIN_KEYS:
            if isinstance(item, (bool, int, float)) and item in (0, 1):
                stated[key] = item == 1
            else:
                refuse("train-value", member(path, key), f'"{key}" is {_shown(item)}')
        elif says_training(key):
            meant = misspelt(key)
            why = f"did you mean {meant}?" if meant in TRAIN_KEYS else "tools disagree on what it means"
            refuse("train-key", member(path, key), f"the key {quoted(key)} is not read; {why}")
    if len(set(stated.values())) > 1:
        said = (
            f'"{key}" says {"trained on" if is_trained else "not trained on"}' for key, is_trained in stated.items()
        )
        refuse("train-conflict", path, ", ".join(said))
    return next(iter(stated.values()), None)


def _shown(item: Any) -> str:
    if isinstance(item, str):
        return quoted(item)
    return str(item) if isinstance(item, (int, float)) else kind_of(item)
