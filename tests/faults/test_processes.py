"""Two processes on one run, changed data, and numbers that are not finite."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.cases import quick_first
from tests.commands import run_process, settings, start
from tests.faults.harness import RUN, STEPS, assert_refused, copy_of, finish, outcome

LONG = settings(
    "training.max_steps=400", "evaluation.every_steps=400", "checkpoints.every_steps=100"
)


def until(process: subprocess.Popen[bytes], pattern: str) -> str:
    """Read stderr to the first line that matches."""
    assert process.stderr is not None
    said = ""
    for raw in process.stderr:
        said += raw.decode()
        if re.search(pattern, raw.decode()):
            return said
    raise AssertionError(f"never said {pattern}: {said}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["train", "config.yaml", *LONG], id="train"),
        pytest.param(["resume", RUN, *LONG], id="resume"),
    ],
)
def test_a_second_process_on_the_same_run_is_refused_and_the_first_continues(
    convo, finished, tmp_path, command
):
    folder = copy_of(finished, tmp_path / "work")
    if command[0] == "train":
        shutil.rmtree(folder / RUN)
    first = start(folder, *command)
    try:
        said = until(first, r"^step \d+/")
        first.send_signal(signal.SIGSTOP)
        for second in (["resume", RUN, "-q"], ["train", "config.yaml", "-q"]):
            ended = convo(folder, *second)
            assert_refused(ended, 5)
            assert RUN in ended.err
        first.send_signal(signal.SIGCONT)
        first.send_signal(signal.SIGTERM)
        _, rest = first.communicate(timeout=120)
    finally:
        first.kill()
    assert first.returncode == 143, said + rest.decode()
    assert convo(folder, "resume", RUN, "-q", *settings("training.max_steps=2")).code == 0


@pytest.mark.slow
def test_of_two_trainings_that_begin_at_once_one_continues(fresh, expected, tmp_path):
    folder = copy_of(fresh, tmp_path / "work")
    both = [start(folder, "train", "config.yaml", "-q") for _ in range(2)]
    try:
        said = [process.communicate(timeout=120)[1].decode() for process in both]
    finally:
        for process in both:
            process.kill()
    assert sorted(process.returncode for process in both) == [0, 5], said
    assert "Traceback" not in "".join(said)
    assert outcome(folder / RUN) == expected


def reorder(lines: list[str]) -> list[str]:
    return [lines[1], lines[0], *lines[2:]]


def change_a_byte(lines: list[str]) -> list[str]:
    assert " the " in lines[0] or "e" in lines[0]
    return [lines[0].replace("e", "E", 1), *lines[1:]]


@pytest.mark.parametrize(
    "change", [reorder, change_a_byte, lambda lines: lines[:-1], lambda lines: [*lines, lines[0]]]
)
@pytest.mark.parametrize("name", quick_first(["train.jsonl", "valid.jsonl"]))
def test_data_that_was_changed_is_refused_by_name_and_the_run_is_left_alone(
    convo, finished, tmp_path, change, name
):
    folder = copy_of(finished, tmp_path / "work")
    file = folder / name
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(change(lines)), encoding="utf-8")
    before = outcome(folder / RUN)
    ended = convo(folder, "resume", RUN, "-q", *settings(f"training.max_steps={STEPS + 2}"))
    assert_refused(ended, 6)
    assert name in ended.err
    assert outcome(folder / RUN) == before


def published_tensors(run: Path) -> dict[str, torch.Tensor]:
    return {
        f"{file.relative_to(run)} {name}": tensor
        for file in run.glob("checkpoints/step-????????/*.safetensors")
        for name, tensor in load_file(file).items()
    }


def assert_all_finite(run: Path) -> None:
    """Assert that published checkpoints are finite; a temporary folder is not a checkpoint."""
    broken = [
        name for name, tensor in published_tensors(run).items() if not tensor.isfinite().all()
    ]
    assert not broken, broken


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=["NaN", "infinity"])
def test_a_model_with_a_weight_that_is_not_finite_is_not_trained(convo, finished, tmp_path, value):
    folder = copy_of(finished, tmp_path / "work")
    assert convo(folder, "export", RUN, "model", "-q").code == 0
    weights = load_file(folder / "model/model.safetensors")
    weights["transformer.wte.weight"][300, 0] = value  # a token that may be in no dialogue
    (folder / "model/MANIFEST.json").unlink()
    save_file(weights, folder / "model/model.safetensors", metadata={"format": "pt"})
    config = folder / "config.yaml"
    text = re.sub(r"model:\n  scratch: .*|tokenizer: .*", "", config.read_text(encoding="utf-8"))
    config.write_text(
        text.replace("name: tiny", "name: broken\nmodel: {pretrained: model}"), encoding="utf-8"
    )
    ended = convo(folder, "train", "config.yaml", "-q")
    assert_refused(ended, 2, 4)
    assert "not finite" in ended.err
    assert not list(folder.glob("runs/broken/checkpoints/step-*"))


def test_a_learning_rate_beyond_reason_stops_the_run_and_no_file_has_a_nan(convo, fresh, tmp_path):
    folder = copy_of(fresh, tmp_path / "work")
    absurd = settings(
        "training.learning_rate=10",
        "training.warmup_steps=0",
        "training.max_grad_norm=null",
        "training.precision=fp16",
    )
    ended = convo(folder, "train", "config.yaml", "-q", *absurd)
    assert_refused(ended, 4)
    assert re.search(r"step \d+", ended.err)
    assert_all_finite(folder / RUN)
    assert published_tensors(folder / RUN)
    assert convo(folder, "resume", RUN, "-q", *settings("training.learning_rate=1e-4")).code in (
        0,
        4,
    )
    assert_all_finite(folder / RUN)


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors"])
def test_a_nan_that_is_put_into_a_checkpoint_is_not_resumed(convo, finished, tmp_path, file):
    """Another tool may have written it."""
    folder = copy_of(finished, tmp_path / "work")
    newest = folder / RUN / f"checkpoints/step-{STEPS:08}"
    tensors = load_file(newest / file)
    name = next(name for name in tensors if tensors[name].dim() == 2)
    tensors[name][0, 0] = float("nan")
    save_file(tensors, newest / file, metadata={"format": "pt"})
    ended = convo(folder, "resume", RUN, "-q", *settings(f"training.max_steps={STEPS + 1}"))
    assert f"step-{STEPS:08}/{file}" in ended.err
    assert_all_finite(folder / RUN) if ended.code == 0 else assert_refused(ended, 4, 5)


@pytest.mark.slow
def test_a_stop_in_the_last_step_loses_nothing(fresh, convo, expected, tmp_path):
    folder = copy_of(fresh, tmp_path / "work")
    first = start(folder, "train", "config.yaml")
    try:
        until(first, rf"^step {STEPS}/")
        first.send_signal(signal.SIGTERM)
        first.communicate(timeout=120)
    finally:
        first.kill()
    assert first.returncode in (0, 143)
    assert finish(convo, folder).code == 0
    assert outcome(folder / RUN) == expected


@pytest.mark.slow
def test_killed_while_it_imports_leaves_nothing(fresh, expected, tmp_path):
    """The real executable, killed at five instants of its start-up."""
    for tenths in (1, 5, 10, 20, 30):
        folder = copy_of(fresh, tmp_path / f"work{tenths}")
        process = start(folder, "train", "config.yaml", "-q")
        try:
            process.wait(tenths / 10)
        except subprocess.TimeoutExpired:
            pass
        finally:
            process.kill()
            process.communicate()
        assert run_process(folder, "train", "config.yaml", "-q").code in (0, 5)
