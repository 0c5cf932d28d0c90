"""Events of a run for tests of reporters, with a clock and a terminal."""

from __future__ import annotations

import io
from pathlib import Path

from convo_cli.events import (
    DeviceMeasured,
    EvaluationDone,
    GpuUsage,
    RunStarted,
    SampleReply,
    StepDone,
    TokenCounts,
)

STARTED = RunStarted(
    run_dir=Path("runs/convo"),
    device="cpu",
    precision="fp32",
    num_threads=2,
    num_parameters=12_345_678,
    template="turns",
    max_length=512,
    training=TokenCounts(
        11_118,
        11_500,
        382,
        1_363_000,
        1_343_000,
        {"assistant": 450_000, "user": 150_000},
        104.0,
        1_790,
    ),
    validation=TokenCounts(
        852, 852, 0, 104_000, 104_000, {"assistant": 35_000, "user": 0}, 99.5, 480
    ),
    first_step=1,
    max_steps=300,
    steps_per_epoch=43,
)
HOSTILE = "\x1b[2J\x1b]0;title\x07[/bold] [red]ok[/red]\x9b31m\r\nand\x08 more"
HARMLESS = "[/bold] [red]ok[/red] and more"
SCORES = {"bleu-2": 4.125, "bleu-4": 1.5, "nist-2": 0.4, "nist-4": 0.41}


GPU = GpuUsage(
    process_bytes=12 * 2**30,
    peak_process_bytes=14 * 2**30,
    used_bytes=40 * 2**30,
    total_bytes=79 * 2**30,
    utilization=0.97,
    memory_utilization=0.5,
    temperature_celsius=64.0,
    memory_temperature_celsius=71.0,
    fan_speed=0.25,
    power_watts=412.5,
    power_limit_watts=700.0,
)
ON_CPU = DeviceMeasured(1, 3 * 2**29, 7 * 2**28, 0.93)
ON_GPU = DeviceMeasured(1, 3 * 2**29, 7 * 2**28, 0.06, GPU)


class FakeClock:
    """A clock whose time is set by the test."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class FakeTerminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def step(
    number: int, *, loss: float = 5.1234, max_steps: int = 300, seconds: float = 0.5
) -> StepDone:
    numbers = (loss, 3.3e-4, 1.234, 600, 300, seconds, 600 * number)
    return StepDone(number, max_steps, *numbers, number / 43, seconds / 100, seconds * 6e10)


def evaluation(number: int, samples: tuple[SampleReply, ...] = ()) -> EvaluationDone:
    return EvaluationDone(number, 3.21, 24.779, 100, 2.0, SCORES, samples)


def sample(reply: str, *, stopped: bool = True) -> SampleReply:
    return SampleReply(
        (("user", "hi"), ("assistant", "hello"), ("user", "how are you ?")), "fine", reply, stopped
    )
