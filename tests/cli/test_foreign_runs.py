"""Foreign run directories: planted files are never followed, waited for or read whole."""

from __future__ import annotations

import os
import signal

import pytest

from tests.commands import PICTURES, run_here, settings
from tests.planted import LINKS, PLANTED, SECRET, holders_of_the_secret, make_outside, state_of

RUN = "runs/tiny"
NEWEST = "checkpoints/step-00000006"
MORE = settings("training.max_steps=7")
COMMANDS = {
    "resume": ["resume", RUN, *MORE],
    "fork": ["resume", RUN, *MORE, *settings("name=fork")],
    "fork of the best": ["resume", RUN, *MORE, "--load", "loss"],
    "verify": ["resume", RUN, "--verify", "--steps", "2"],
    "chat": ["chat", RUN],
    "chat with a checkpoint": ["chat", f"{RUN}/{NEWEST}"],
    "export": ["export", RUN, "exports/new"],
    "evaluate": ["evaluate", RUN, "valid.jsonl", "--replies", "0"],
}
OTHERS = [name for name in COMMANDS if name != "resume"]
OF_THE_RUN = [
    "run.json",
    "config.yaml",
    "dialogue.json",
    "metrics.jsonl",
    "samples.jsonl",
    "last.json",
    "best-loss.json",
    "best-metric.json",
    ".lock",
    "stop",
]
PLOTS = ["plots/loss.png", "plots/learning_rate.png"]
EVENTS = "tensorboard/events.out.tfevents.1"
FOLDERS = ["plots", "tensorboard", "tokenizer", "checkpoints", NEWEST]
LEFT_OVER = [".tmp-metrics.jsonl-1", ".tmp-last.json.replaced", "checkpoints/.tmp-step-00000007-1"]
OF_A_CHECKPOINT = [
    f"{NEWEST}/{name}"
    for name in (
        "MANIFEST.json", "state.json", "optimizer.safetensors", "model.safetensors", "config.json",
        "dialogue.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json",
        "spiece.model", "chat_template.jinja", "extra.json", "extra.safetensors",
    )
]  # fmt: skip
NAMES = [*OF_THE_RUN, *PLOTS, EVENTS, *FOLDERS, *LEFT_OVER, *OF_A_CHECKPOINT]


class Hung(BaseException):
    """A command did not end."""


@pytest.fixture
def attacked(work, tmp_path):
    """A run with TensorBoard events, and a folder of other files."""
    (work / RUN / "tensorboard").mkdir(exist_ok=True)
    (work / RUN / EVENTS).write_bytes(b"")
    return work, make_outside(tmp_path / "outside")


def attempt(work, outside, command, name=""):
    """Run a command; it must end soon, and neither change nor show anything outside the run.

    Only a command with a picture under ``name`` draws, because drawing takes most of the time.
    """

    def hang(number, frame):
        raise Hung(command)

    before = state_of(outside)
    signal.signal(signal.SIGALRM, hang)
    signal.alarm(60)
    try:
        is_drawn = name.startswith(("plots", "tensorboard")) and COMMANDS[command][0] == "resume"
        drawing = PICTURES if is_drawn and "--verify" not in COMMANDS[command] else []
        result = run_here(work, *COMMANDS[command], *drawing, stdin=b"hello\n")
    finally:
        signal.alarm(0)
    assert state_of(outside) == before
    assert not holders_of_the_secret(work, outside)
    assert SECRET not in result.out + result.err
    assert result.code in (0, 2, 5, 7), result
    assert result.code == 0 or "\nhint: " in result.err, result
    return result


def planted(work, outside, name, kind):
    path = work / RUN / name
    if not os.path.lexists(path):
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
    PLANTED[kind](path, outside)
    return path


CASES = [
    pytest.param(
        command,
        kind,
        name,
        marks=[pytest.mark.slow] * ((row + column) % len(PLANTED) != 0 or turn != row % 2),
    )
    for row, name in enumerate(NAMES)
    for column, kind in enumerate(PLANTED)
    for turn, command in enumerate(("resume", OTHERS[(row + column) % len(OTHERS)]))
]
"""Every kind under every name, each with a resume and with one of the other commands in turn.

The quick cases have one kind and one command for each name.
"""


@pytest.mark.parametrize(("command", "kind", "name"), CASES)
def test_a_planted_file_changes_and_shows_nothing_outside(attacked, command, kind, name):
    work, outside = attacked
    planted(work, outside, name, kind)
    attempt(work, outside, command, name)


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize(
    "name", [name for name in (*OF_THE_RUN, *PLOTS, *FOLDERS) if name != "stop"]
)
def test_a_run_with_a_link_in_it_is_not_continued(attacked, name, kind):
    work, outside = attacked
    path = planted(work, outside, name, kind)
    before = state_of(work / RUN)
    result = attempt(work, outside, "resume", name)
    assert result.code in (5, 7)
    assert f"{path.relative_to(work)}: " in result.err
    assert "a symbolic link" in result.err
    after = state_of(work / RUN)
    assert {path for path in before if before[path] != after.get(path)} <= {".lock"}
