"""A run whose last checkpoint is not its best: every command that loads it says so."""

from __future__ import annotations

from functools import partial

import pytest

from tests.commands import make_workplace, run_here, settings

BEST, LAST = "runs/worse/checkpoints/step-00000003", "runs/worse/checkpoints/step-00000006"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_workplace(tmp_path_factory.mktemp("worse"))


@pytest.fixture(scope="module")
def trained(folder):
    """The output of a training that gets worse from step 3 on."""
    worse = settings("name=worse", "training.learning_rate=1.0", "training.warmup_steps=3")
    return run_here(folder, "train", "config.yaml", *worse).err


@pytest.fixture
def convo(folder, trained):
    return partial(run_here, folder)


def test_the_end_of_a_training_names_the_best_checkpoint_and_how_to_use_it(trained):
    last_lines = trained.splitlines()[-2:]
    assert last_lines[0].startswith("the best validation loss is ")
    assert ", at step 3 (last step: " in last_lines[0]
    assert last_lines[1] == f"  convo chat {BEST}"


@pytest.mark.parametrize("command", [["chat", "runs/worse"], ["export", "runs/worse", "out"]])
def test_what_loads_the_run_names_its_step_and_the_better_one(convo, command):
    result = convo(*command, stdin=b"hi\n")
    assert result.code == 0
    (line,) = [line for line in result.err.splitlines() if line.startswith("loaded ")]
    assert line.startswith(
        f"loaded {LAST}: the last checkpoint of its run, step 6, validation loss "
    )
    assert line.endswith(f", at step 3: to use that checkpoint, give {BEST}")


def test_the_best_checkpoint_has_no_better_one(convo):
    err = convo("chat", BEST, stdin=b"hi\n").err
    assert f"loaded {BEST}: not the last checkpoint, step 3, validation loss " in err
    assert "to use that checkpoint" not in err


def test_quiet_says_nothing_of_it(convo):
    assert convo("chat", "runs/worse", "-q", stdin=b"hi\n").err == ""
