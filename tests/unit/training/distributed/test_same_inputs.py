"""Processes with another config or other data are refused, with the key and the process."""

from __future__ import annotations

import pytest

from convo_cli.errors import UsageError
from convo_cli.training.distributed.same_inputs import require_same_config
from convo_cli.world import World


class Pair(World):
    """Rank 0 of two processes; the other one has these values instead."""

    size = 2

    def __init__(self, **others):
        self._others = others

    def gather(self, value):
        return [value, {**value, **self._others}]


def test_the_same_config_in_both_is_accepted(tiny_config):
    require_same_config(Pair(), tiny_config())


@pytest.mark.parametrize("key", ["training.learning_rate", "torch", "convo", "data.train"])
def test_a_difference_is_refused_with_its_key_and_the_process(tiny_config, key):
    with pytest.raises(UsageError) as caught:
        require_same_config(Pair(**{key: "other"}), tiny_config())
    assert caught.value.message.startswith(f"{key} is ")
    assert caught.value.message.endswith(" in rank 0, but other in rank 1")


def test_one_process_compares_nothing(tiny_config):
    require_same_config(World(), tiny_config())
