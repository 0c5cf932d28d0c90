"""The TensorBoard events, read back from their files."""

from __future__ import annotations

import math
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from convo_cli.errors import DiskError
from convo_cli.events import (
    CheckpointSaved,
    EvaluationDone,
    HealthFinding,
    Notice,
    RunFinished,
    SampleReply,
    StepDone,
)
from convo_cli.runs.logs.tensorboard import TensorBoardLog
from tests.full_disk import file_size_limit
from tests.run_events import ON_CPU, ON_GPU


def step(number: int, *, loss: float = 2.5, seconds: float = 0.5) -> StepDone:
    return StepDone(number, 10, loss, 3e-4, 1.25, 64, 32, seconds, 64 * number, epoch=number / 5)


def records(folder: Path) -> list[Any]:
    """Every event of every file, oldest file first. A record is its length, a checksum, the bytes,
    a checksum.
    """
    from tensorboardX.proto.event_pb2 import Event as Record

    found = []
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack_from("<Q", content)
            found.append(Record.FromString(content[12 : 12 + length]))
            content = content[12 + length + 4 :]
    return found


def scalars(folder: Path) -> dict[tuple[str, int], float]:
    return {
        (value.tag, record.step): value.simple_value
        for record in records(folder)
        for value in record.summary.value
        if value.HasField("simple_value")
    }


def texts(folder: Path) -> dict[tuple[str, int], str]:
    return {
        (value.tag, record.step): value.tensor.string_val[0].decode()
        for record in records(folder)
        for value in record.summary.value
        if value.metadata.plugin_data.plugin_name == "text"
    }


def test_training_numbers_are_scalars_by_step(tmp_path: Path) -> None:
    log = TensorBoardLog(tmp_path / "runs" / "tensorboard")
    log(step(1))
    log(step(2, loss=2.25))
    log.close()
    written = scalars(tmp_path / "runs" / "tensorboard")
    assert {tag: value for (tag, number), value in written.items() if number == 1} == {
        "train/loss": 2.5,
        "train/learning_rate": pytest.approx(3e-4),
        "train/grad_norm": 1.25,
        "train/num_tokens": 64.0,
        "train/num_targets": 32.0,
        "train/seconds": 0.5,
        "train/waiting_seconds": 0.0,
        "train/tokens_seen": 64.0,
        "train/epoch": pytest.approx(0.2),
        "train/flops": 0.0,
        "train/tokens_per_second": 128.0,
    }
    assert (written["train/loss", 2], written["train/tokens_per_second", 2]) == (2.25, 128.0)


def test_an_evaluation_has_its_intervals_floors_and_findings(tmp_path: Path) -> None:
    log = TensorBoardLog(tmp_path, config="name: tiny\noutput_dir: runs\n")
    log(
        replace(
            EvaluationDone(6, 1.5, 4.5, 99, 1.0, {"bleu-4": 3.5}),
            intervals={"bleu-4": (3.0, 4.0)},
            floors={"echo": {"bleu-4": 2.0}, "random": {"bleu-4": 0.5}},
            end_nll=0.25,
            findings=(HealthFinding("echo", "half of the replies\nrepeat \x9b31mthe user"),),
        )
    )
    log.close()
    written = scalars(tmp_path)
    assert {tag: value for (tag, _), value in written.items() if "/bleu-4/" in tag} == {
        "validation/bleu-4/low": 3.0,
        "validation/bleu-4/high": 4.0,
        "validation/bleu-4/echo": 2.0,
        "validation/bleu-4/random": 0.5,
    }
    assert written["validation/end_nll", 6] == 0.25
    assert ("validation/inner_nll", 6) not in written
    shown = texts(tmp_path)
    assert shown["config/text_summary", 0] == "    name: tiny\n    output_dir: runs"
    finding = "    echo: half of the replies\n    repeat \\u009b31mthe user"
    assert shown["findings/text_summary", 6] == finding


def test_scores_are_scalars_that_can_be_read_during_the_run(tmp_path: Path) -> None:
    log = TensorBoardLog(tmp_path)
    log(step(6))
    log(EvaluationDone(6, 1.5, 4.5, 99, 1.0, {"bleu-2": 3.5}))
    assert scalars(tmp_path) | {("validation/loss", 6): 1.5} == scalars(tmp_path)
    assert scalars(tmp_path)["validation/perplexity", 6] == 4.5
    assert scalars(tmp_path)["validation/bleu-2", 6] == 3.5
    log(step(7))
    log(CheckpointSaved(7, Path("step-00000007")))
    assert ("train/loss", 7) in scalars(tmp_path)
    log.close()


def test_measurements_are_scalars_and_what_is_not_available_is_left_out(tmp_path: Path) -> None:
    log = TensorBoardLog(tmp_path)
    log(replace(ON_CPU, cpu_utilization=None))
    log(replace(ON_GPU, step=2, gpu=replace(ON_GPU.gpu, fan_speed=None, memory_utilization=0.0)))
    log.close()
    written = scalars(tmp_path)
    assert {tag for tag, number in written if number == 1} == {
        "device/memory_bytes",
        "device/peak_memory_bytes",
    }
    assert {tag for tag, number in written if number == 2} == {
        "device/memory_bytes",
        "device/peak_memory_bytes",
        "device/cpu_utilization",
        "gpu/process_bytes",
        "gpu/peak_process_bytes",
        "gpu/used_bytes",
        "gpu/total_bytes",
        "gpu/utilization",
        "gpu/memory_utilization",
        "gpu/temperature_celsius",
        "gpu/memory_temperature_celsius",
        "gpu/power_watts",
        "gpu/power_limit_watts",
    }
    assert written["device/memory_bytes", 1] == 3 * 2**29
    assert written["gpu/temperature_celsius", 2] == 64.0


def test_sample_replies_are_code_blocks_so_that_markdown_changes_nothing(tmp_path: Path) -> None:
    samples = (
        SampleReply(
            (("system", "be *kind*"), ("user", "안녕\n# hi")), "a\n\nb", "<b>well</b>", True
        ),
        SampleReply((), "ok", "and and", False),
    )
    log = TensorBoardLog(tmp_path)
    log(EvaluationDone(4, 1.0, 2.7, 99, 1.0, {}, samples))
    log.close()
    assert texts(tmp_path) == {
        (
            "samples/00/text_summary",
            4,
        ): "    system: be *kind*\n    user: 안녕\n    # hi\n    reply: <b>well</b>\n"
        "    reference: a\n    \n    b",
        ("samples/01/text_summary", 4): "    reply: and and  [token limit]\n    reference: ok",
    }


def test_a_resume_hides_the_steps_after_its_checkpoint(tmp_path: Path) -> None:
    from tensorboardX.proto.event_pb2 import SessionLog

    first = TensorBoardLog(tmp_path)
    for number in range(1, 6):
        first(step(number, loss=number))
    first.close()
    second = TensorBoardLog(tmp_path, after_step=3)
    second(step(4, loss=40))
    second.close()
    assert len(list(tmp_path.iterdir())) == 2, (
        "the second file must not overwrite the first, even in the same second"
    )
    purges = [
        record.step for record in records(tmp_path) if record.session_log.status == SessionLog.START
    ]
    assert purges == [4]
    assert scalars(tmp_path)["train/loss", 3] == 3
    assert scalars(tmp_path)["train/loss", 4] == 40


def test_a_fresh_run_hides_nothing(tmp_path: Path) -> None:
    log = TensorBoardLog(tmp_path)
    log(step(1))
    log.close()
    assert not any(record.HasField("session_log") for record in records(tmp_path))


def test_a_number_that_is_not_finite_in_float32_is_left_out(tmp_path: Path) -> None:
    log = TensorBoardLog(tmp_path)
    log(step(1, loss=math.nan, seconds=0.0))
    log(EvaluationDone(1, 200.0, math.exp(200.0), 99, 1.0, {"nist-2": -math.inf}))
    log.close()
    written = {tag for tag, _ in scalars(tmp_path)}
    assert {"train/learning_rate", "train/grad_norm", "validation/loss"} <= written
    absent = {"train/loss", "train/tokens_per_second"}
    assert written.isdisjoint({*absent, "validation/perplexity", "validation/nist-2"})


def test_events_without_numbers_write_nothing(tmp_path: Path) -> None:
    log = TensorBoardLog(tmp_path)
    log(Notice("beware", is_warning=True))
    log(RunFinished(3, "all 3 steps done"))
    log.close()
    assert [record.file_version for record in records(tmp_path)] == ["brain.Event:2"]


def test_a_full_disk_is_an_error_that_names_the_file_and_never_blocks(tmp_path: Path) -> None:
    log = TensorBoardLog(tmp_path / "tensorboard")
    with file_size_limit(100):
        with pytest.raises(DiskError, match="tensorboard"):
            log(
                EvaluationDone(
                    1, 1.0, 2.7, 99, 1.0, {}, (SampleReply((), "ok", "and " * 1000, True),)
                )
            )
        with pytest.raises(DiskError, match="tensorboard"):
            log.close()


def test_importing_the_module_imports_no_tensorboard_and_no_torch() -> None:
    code = (
        "import sys, convo_cli.runs.logs.tensorboard;"
        "sys.exit(bool({'torch', 'tensorboardX', 'rich'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
