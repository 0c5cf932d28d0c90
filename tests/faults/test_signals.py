"""SIGINT, SIGTERM and SIGUSR1 in each phase: the run is saved, and a resume ends the same.

A second signal ends the command at once.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from convo_cli.runs.logs.event_log import read_metrics
from convo_cli.storage.sealed import verify_directory
from tests.commands import settings, start
from tests.faults.harness import (
    RUN,
    STEPS,
    Outcome,
    Zygote,
    copy_of,
    fault,
    finish,
    operations,
    outcome,
)
from tests.faults.test_processes import until
from tests.forks import start_fork

NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]
PLACES = (
    "runs/.convo-cache/.tmp-tokenizer",
    "runs/.convo-cache/.tmp-tokens",
    "checkpoints/.tmp-step-00000000",
    "checkpoints/.tmp-step-00000003",
    "best-loss.json",
)
SLOW_EVALUATION = settings("evaluation.reply_dialogues=25", "generation.max_new_tokens=64")


def one_of(chosen: int) -> pytest.MarkDecorator:
    """Parametrize over all signals; only the chosen one is in the fast tests."""
    return pytest.mark.parametrize(
        "number",
        [
            pytest.param(one, id=one.name, marks=[] if one == chosen else pytest.mark.slow)
            for one in NUMBERS
        ],
    )


def assert_stopped(code: int, err: str, number: int) -> None:
    assert code == 128 + number, (code, err)
    assert "Traceback" not in err, err


@pytest.mark.parametrize(
    ("place", "number"),
    [
        pytest.param(
            place,
            number,
            id=f"{number.name} in {place}",
            marks=[] if turn % 3 == rest else pytest.mark.slow,
        )
        for turn, place in enumerate(PLACES)
        for rest, number in enumerate(NUMBERS)
    ],
)
def test_a_signal_at_a_file_operation_stops_the_run_which_then_ends_the_same(
    convo: Zygote, fresh: Path, expected: Outcome, tmp_path: Path, number: int, place: str
) -> None:
    """The places are in the preparation of the data, and in saves."""
    cold = copy_of(fresh, tmp_path / "cold")
    shutil.rmtree(cold / "runs")
    whole = copy_of(cold, tmp_path / "whole")
    assert convo(whole, "train", "config.yaml", "-q", env=fault(whole / "runs")).code == 0
    at = [one.number for one in operations(whole / "runs") if place in f"{one.path} {one.target}"]
    assert at
    ended = convo(
        cold, "train", "config.yaml", "-q",
        env=fault(cold / "runs", "signal", at[len(at) // 2], number=number),
    )  # fmt: skip
    assert_stopped(ended.code, ended.err, number)
    is_begun = (cold / RUN).exists()
    assert ("convo resume" in ended.err) == is_begun, ended
    for step in (cold / RUN).glob("checkpoints/step-*"):
        verify_directory(step)
    assert finish(convo, cold).code == 0
    assert outcome(cold / RUN) == expected


def test_two_signals_in_a_save_tear_nothing(convo, fresh, expected, tmp_path):
    """The second one ends the command at once, in the middle of a file."""
    whole = copy_of(fresh, tmp_path / "whole")
    assert convo(whole, "train", "config.yaml", "-q", env=fault(whole / "runs")).code == 0
    inside = [one.number for one in operations(whole / "runs") if ".tmp-step-00000003" in one.path]
    folder = copy_of(fresh, tmp_path / "work")
    once = fault(folder / "runs", "signal-on", inside[len(inside) // 2], number=signal.SIGTERM)
    ended = convo(folder, "train", "config.yaml", "-q", env=once)
    assert_stopped(ended.code, ended.err, signal.SIGTERM)
    assert not (folder / RUN / "checkpoints/step-00000003").exists()
    assert finish(convo, folder).code == 0
    assert outcome(folder / RUN) == expected


@pytest.mark.slow
@pytest.mark.parametrize("tenths", [1, 3, 8, 14, 20])
def test_a_signal_while_it_starts_is_answered_without_a_traceback(
    convo, fresh, expected, tmp_path, tenths
):
    """The real executable, whose imports take seconds."""
    folder = copy_of(fresh, tmp_path / "work")
    number = NUMBERS[tenths % len(NUMBERS)]
    process = start(folder, "train", "config.yaml")
    try:
        time.sleep(tenths / 10)
        process.send_signal(number)
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
    if process.returncode != -number:  # Python itself had not started yet
        assert_stopped(process.returncode, err.decode(), number)
    assert finish(convo, folder).code == 0
    assert outcome(folder / RUN) == expected


@pytest.mark.slow
@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number.name)
def test_a_signal_in_a_step_stops_the_run_which_then_ends_the_same(
    convo, fresh, expected, tmp_path, number
):
    folder = copy_of(fresh, tmp_path / "work")
    process = start(folder, "train", "config.yaml")
    try:
        said = until(process, r"^step 1/")
        process.send_signal(number)
        _, rest = process.communicate(timeout=120)
    finally:
        process.kill()
    assert_stopped(process.returncode, said + rest.decode(), number)
    assert re.search(r"stopped after step \d", rest.decode())
    assert finish(convo, folder).code == 0
    assert outcome(folder / RUN) == expected


@pytest.fixture(scope="module")
def slow_straight(convo, fresh, tmp_path_factory) -> Outcome:
    """The outcome of a run with long evaluations, mostly of replies."""
    folder = copy_of(fresh, tmp_path_factory.mktemp("slow") / "work")
    assert convo(folder, "train", "config.yaml", "-q", *SLOW_EVALUATION).code == 0
    return outcome(folder / RUN)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("^evaluating", id="early", marks=pytest.mark.slow),
        pytest.param("^generating replies", id="while it writes replies"),
    ],
)
def test_a_signal_in_an_evaluation_stops_at_once_and_the_evaluation_is_repeated(
    convo, fresh, slow_straight, tmp_path, line
):
    folder = copy_of(fresh, tmp_path / "work")
    process = start_fork(folder, "train", "config.yaml", *SLOW_EVALUATION)
    try:
        said = until(process, line)
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=120)
    finally:
        process.kill()
    assert_stopped(process.returncode, said + rest.decode(), signal.SIGTERM)
    logged = [
        one["step"]
        for one in read_metrics(folder / RUN / "metrics.jsonl")
        if one["event"] == "evaluation"
    ]
    assert logged == [], "what was interrupted is not logged"
    assert finish(convo, folder).code == 0
    assert outcome(folder / RUN) == slow_straight


@one_of(signal.SIGINT)
def test_a_signal_in_an_export_leaves_a_whole_export_or_none(convo, finished, tmp_path, number):
    whole = copy_of(finished, tmp_path / "whole")
    arguments = ["export", RUN, "runs/out", "-q"]
    assert convo(whole, *arguments, env=fault(whole / "runs")).code == 0
    inside = [one.number for one in operations(whole / "runs") if ".tmp-out" in one.path]
    folder = copy_of(finished, tmp_path / "work")
    ended = convo(
        folder,
        *arguments,
        env=fault(folder / "runs", "signal", inside[len(inside) // 2], number=number),
    )
    assert ended.code in (0, 128 + number, -number), ended
    assert "Traceback" not in ended.err
    out = folder / "runs/out"
    if out.exists():
        verify_directory(out)
    assert convo(folder, *arguments, *(["--force"] if out.exists() else [])).code == 0


@pytest.mark.slow
def test_a_file_named_stop_ends_the_run_after_the_step(convo, fresh, expected, tmp_path):
    folder = copy_of(fresh, tmp_path / "work")
    process = start(folder, "train", "config.yaml")
    try:
        until(process, r"^step 1/")
        (folder / RUN / "stop").touch()
        _, rest = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0, rest.decode()
    assert not (folder / RUN / "stop").exists(), "the file stops only one run"
    assert not (folder / RUN / f"checkpoints/step-{STEPS:08}").exists()
    assert finish(convo, folder).code == 0
    assert outcome(folder / RUN) == expected


@pytest.mark.slow
def test_a_reader_that_goes_away_does_not_end_the_run(fresh, expected, tmp_path):
    """`convo train config.yaml 2>&1 | head -1`."""
    folder = copy_of(fresh, tmp_path / "work")
    process = start(folder, "train", "config.yaml")
    try:
        assert process.stderr is not None
        process.stderr.readline()
        process.stderr.close()
        process.wait(120)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    finally:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stdin is not None
        process.stdin.close()
    assert process.returncode == 0
    assert outcome(folder / RUN) == expected
