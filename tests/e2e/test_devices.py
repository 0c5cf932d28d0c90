"""`convo train --devices 2`: several processes have one outcome, also if one is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress

import psutil
import pytest

from convo_cli.runs.directory import RunDirectory
from tests.commands import (
    EXECUTABLE,
    environment,
    make_workplace,
    run_here,
    run_process,
    settings,
    start,
)

HIDE, SHOW = b"\x1b[?25l", b"\x1b[?25h"
LONG = settings(
    "training.max_steps=100000", "evaluation.every_steps=50000", "evaluation.reply_dialogues=0",
    "logging.tensorboard=false", "logging.plots=false", "training.devices=2",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    return make_workplace(tmp_path)


@pytest.fixture(autouse=True)
def two_cpus():
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two CPUs")


def _begun(folder, *arguments, **env):
    """Start a run on two devices and wait for its first steps; return launcher and ranks."""
    launcher = start(folder, *arguments, "--quiet", env=environment(OMP_NUM_THREADS="1", **env))
    log = folder / "runs" / "tiny" / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not log.exists() or log.read_text().count('"event": "step"') < 3:
        assert launcher.poll() is None, launcher.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    ranks = psutil.Process(launcher.pid).children()
    return launcher, sorted(ranks, key=lambda rank: int(rank.environ()["RANK"]))


def _require_gone(ranks):
    gone, alive = psutil.wait_procs(ranks, timeout=60)
    assert (len(gone), alive) == (2, [])


@pytest.mark.slow
def test_a_signal_to_the_launcher_saves_the_run_which_one_device_continues(folder):
    launcher, ranks = _begun(folder, "train", "config.yaml", *LONG)
    launcher.send_signal(signal.SIGTERM)
    _, err = launcher.communicate(timeout=120)
    lines = err.decode().splitlines()
    assert launcher.returncode == 143
    assert lines[0] == "SIGTERM: stopping after this step"
    assert "; the run is saved" in lines[1]
    assert lines[2:] == ["hint: convo resume runs/tiny"]
    _require_gone(ranks)
    run = RunDirectory(folder / "runs" / "tiny")
    step = run.checkpoint_steps()[-1]
    further = settings(f"training.max_steps={step + 2}")
    result = run_process(folder, "resume", "runs/tiny", "--devices", "1", *further)
    assert result.code == 0, result.err
    assert "processes: the run had 2 and continues with 1" in result.err
    changes = json.loads(run.info.read_text())["changes"]
    assert [change["step"] for change in changes if "processes" in change["message"]] == [step]


@pytest.mark.slow
@pytest.mark.parametrize(("killed", "sharding"), [(0, "none"), (1, "none"), (1, "full")])
def test_a_killed_process_ends_all_with_one_error(folder, killed, sharding):
    further = settings(f"training.sharding={sharding}")
    launcher, ranks = _begun(folder, "train", "config.yaml", *LONG, *further)
    started = time.monotonic()
    ranks[killed].kill()
    _, err = launcher.communicate(timeout=60)
    assert time.monotonic() - started < 15
    assert launcher.returncode == 137
    error, hint = err.decode().splitlines()
    assert error.startswith(f"error: rank {killed} on ")
    assert hint == "hint: convo resume runs/tiny"
    _require_gone(ranks)


@pytest.mark.slow
def test_the_cursor_is_shown_again_after_the_live_view_is_killed(folder):
    ours, terminal = os.openpty()
    launcher = subprocess.Popen(
        [EXECUTABLE, "train", "config.yaml", *LONG],
        cwd=folder, env=environment(OMP_NUM_THREADS="1", TERM="xterm"),
        stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal,
    )  # fmt: skip
    os.close(terminal)
    output = b""
    with suppress(OSError):  # the terminal ends with its last process
        while chunk := os.read(ours, 4096):
            is_hidden = HIDE in output
            output += chunk
            if HIDE in output and not is_hidden:
                ranks = psutil.Process(launcher.pid).children()
                rank_0 = next(rank for rank in ranks if rank.environ()["RANK"] == "0")
                rank_0.kill()
    os.close(ours)
    assert launcher.wait(60) == 137
    assert output.rindex(SHOW) > output.rindex(HIDE)
    assert b"error: rank 0 on " in output[output.rindex(SHOW) :]


@pytest.mark.slow
@pytest.mark.parametrize("hung", [0, 1])
def test_a_process_that_hangs_ends_all_with_one_error(folder, hung):
    launcher, ranks = _begun(folder, "train", "config.yaml", *LONG, CONVO_SECONDS_TO_ANSWER="5")
    ranks[hung].suspend()
    _, err = launcher.communicate(timeout=120)
    assert launcher.returncode == 137
    error, hint = err.decode().splitlines()
    assert error.startswith(f"error: rank {hung} on ")
    assert hint == "hint: convo resume runs/tiny"
    _require_gone(ranks)


@pytest.mark.slow
def test_the_processes_save_and_end_if_their_launcher_is_killed(folder):
    launcher, ranks = _begun(folder, "train", "config.yaml", *LONG)
    launcher.kill()
    launcher.communicate()
    _require_gone(ranks)
    assert RunDirectory(folder / "runs" / "tiny").checkpoint_steps()[-1] > 0


@pytest.mark.parametrize("further", [[], ["--dry-run"]])
def test_more_devices_than_cpus_are_refused_before_anything_is_written(folder, further):
    result = run_here(folder, "train", "config.yaml", "--devices", "4096", *further)
    assert result.code == 2
    assert "cannot use 4,096 devices: convo may use" in result.err
    assert not (folder / "runs").exists()


@pytest.mark.parametrize("device", ["cuda:1", "mps"])
def test_one_device_is_refused_beside_several(folder, device):
    result = run_here(
        folder, "train", "config.yaml", "--devices", "2", *settings(f"training.device={device}")
    )
    assert result.code == 2
    assert f"{device} is one device; with devices" in result.err
    assert not (folder / "runs").exists()


@pytest.mark.parametrize("devices", ["0", "two", "1,1", "-1", "2.5"])
def test_a_wrong_number_of_devices_is_refused(folder, devices):
    result = run_here(folder, "train", "config.yaml", f"--devices={devices}")
    assert result.code == 2
    assert "training.devices" in result.err
    assert "Traceback" not in result.err
    result = run_here(folder, "evaluate", ".", "valid.jsonl", f"--devices={devices}")
    assert result.code == 2
    assert result.err.startswith(f"error: --devices {devices}: not a number of devices")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--devices", "4096"], "cannot use 4,096 devices: convo may use"),
        (["--devices", "2", "--device", "cuda:1"], "--device cuda:1 is one device"),
        (["--devices", "2", "--device", "mps"], "--device mps is one device"),
    ],
)
def test_evaluate_refuses_devices_that_are_not_there(folder, options, message):
    (folder / "model").mkdir()
    (folder / "model" / "MANIFEST.json").write_text("{}")  # is read only with torch
    result = run_here(folder, "evaluate", "model", "valid.jsonl", "-q", *options)
    assert result.code == 2
    assert result.err.startswith(f"error: {message}")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a finished run, and a damaged checkpoint of it."""
    folder = make_workplace(tmp_path_factory.mktemp("evaluated"))
    assert run_here(folder, "train", "config.yaml", "-q").code == 0
    shutil.copytree(folder / "runs/tiny/checkpoints/step-00000006", folder / "broken")
    weights = folder / "broken" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    return folder


@pytest.mark.slow
def test_two_processes_evaluate_like_one_also_beside_a_model_that_fails(trained):
    found = {}
    for devices in (1, 2):
        result = run_process(
            trained, "evaluate", "broken", "runs/tiny", "valid.jsonl", "--json", "-q",
            "--samples", f"{devices}.jsonl", "--devices", devices,
            env=environment(OMP_NUM_THREADS="1"),
        )  # fmt: skip
        assert result.code == 5
        assert result.err.count("broken: not scored") == 1
        found[devices] = result.json
    (broken, one), (broken_2, two) = (found[devices]["models"] for devices in (1, 2))
    assert broken == broken_2
    assert two["scores"] == pytest.approx(one["scores"], rel=1e-5)
    assert two["floors"] == one["floors"]
    assert (trained / "1.jsonl").read_text() == (trained / "2.jsonl").read_text()


@pytest.mark.slow
def test_a_signal_ends_an_evaluation_of_two_processes(trained):
    (trained / "long.jsonl").write_text((trained / "train.jsonl").read_text() * 50)
    launcher = start(
        trained, "evaluate", "runs/tiny", "long.jsonl", "--replies", "all", "--devices", "2",
        env=environment(OMP_NUM_THREADS="1"),
    )  # fmt: skip
    lines = iter(launcher.stderr.readline, b"")
    assert any(b"generating replies" in line for line in lines)
    ranks = psutil.Process(launcher.pid).children()
    launcher.send_signal(signal.SIGTERM)
    _, err = launcher.communicate(timeout=120)
    assert launcher.returncode == 143
    assert err.decode().splitlines()[-2:] == ["SIGTERM: stopping", "stopped"]
    _require_gone(ranks)


@pytest.mark.parametrize(
    "seat",
    [
        {"WORLD_SIZE": "4", "RANK": "0"},
        {"WORLD_SIZE": "abc"},
        {"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"},
        {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "1"},
    ],
)
def test_an_environment_that_fits_no_launcher_is_refused(folder, monkeypatch, seat):
    for name, value in seat.items():
        monkeypatch.setenv(name, value)
    result = run_here(folder, "train", "config.yaml")
    assert result.code == 2
    assert f"error: WORLD_SIZE={seat['WORLD_SIZE']} without a RANK" in result.err
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("seconds", "message"),
    [
        ("1", "the 2 processes did not meet at 127.0.0.1:9"),
        ("soon", "CONVO_SECONDS_TO_MEET=soon: not a number of seconds"),
    ],
)
def test_processes_that_do_not_meet_say_where(folder, seconds, message):
    """Rank 1 of a world whose rank 0 never starts."""
    seat = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9", "CONVO_SECONDS_TO_MEET": seconds}
    result = run_process(folder, "train", "config.yaml", env=environment(**seat, **place))
    assert result.code == 2
    *_, error, hint = result.err.splitlines()
    assert error.startswith(f"error: {message}")
    assert hint.startswith("hint: ")
    assert "TCPStore" not in result.err  # torch's own lines
    assert not (folder / "runs" / "tiny").exists()
