"""The live view: exact frames at several widths, and foreign text that cannot act."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from convo_cli.cli.views.progress.live import LiveProgress
from convo_cli.events import (
    BestScore,
    CheckpointSaved,
    DeviceMeasured,
    Event,
    GpuUsage,
    Notice,
    Progress,
    RunFinished,
    SampleReply,
)
from tests.run_events import (
    HARMLESS,
    HOSTILE,
    ON_CPU,
    ON_GPU,
    STARTED,
    FakeClock,
    FakeTerminal,
    evaluation,
    sample,
    step,
)


def frame_lines(
    *events: Event | float, show_samples: int = 3, width: int = 80, height: int = 24
) -> list[str]:
    """The live view after the events, without colours and without the lines above it."""
    clock = FakeClock()
    silent = Console(file=io.StringIO(), width=width, height=height)
    live = LiveProgress(silent, show_samples=show_samples, clock=clock)
    for event in events:
        if isinstance(event, (int, float)):
            clock.now += event
        else:
            live(event)
    console = Console(
        file=io.StringIO(), width=width, height=height, record=True, color_system=None
    )
    console.print(live.frame())
    return [line.rstrip() for line in console.export_text().splitlines()]


SAVED = CheckpointSaved(100, Path("runs/convo/checkpoints/step-00000100"))
WITH_EVALUATIONS = replace(STARTED, steps_per_evaluation=100, metric="bleu-4")
STEPS = [event for number in range(1, 121) for event in (0.5, step(number, loss=10 - number / 40))]
EVALUATED = replace(
    evaluation(100, (sample("i am fine ."), sample("and " * 99, stopped=False), sample("unseen"))),
    best=("loss", "metric"),
)


def test_the_live_view_at_eighty_columns() -> None:
    evaluating = Progress("evaluating", 3, 12, "examples")
    events = (WITH_EVALUATIONS, *STEPS, ON_CPU, EVALUATED, SAVED, evaluating)
    assert frame_lines(*events, show_samples=2) == [
        f"step 120/300  ━━━━━━━━━━━━━━{' ' * 22}  40%  1:00 elapsed  1:34 left",
        "training    loss 7.225  learning rate 3.3e-04  gradient norm 1.23  epoch 2.79",
        "loss curve  ███████▇▇▇▇▇▇▇▇▆▆▆▆▆▆▆▅▅▅▅▅▅▅▄▄▄▄▄▄▄▃▃▃▃▃▃▃▂▂▂▂▂▂▂▁▁▁▁  7.22 to 9.97",
        "speed       1.2k tokens/s  60 GFLOP/s  1.0% waiting for data",
        "device      1.5 GiB memory  peak 1.8 GiB  CPUs 93% busy",
        "validation  step 100  loss 3.210  perplexity 24.8  bleu-2 4.12  bleu-4 1.50",
        "            nist-2 0.40  nist-4 0.41",
        "best so far loss 3.210 at step 100  bleu-4 1.50 at step 100",
        "saved       step 100  runs/convo/checkpoints/step-00000100",
        "  user      how are you ?",
        "  reply     i am fine .",
        "  user      how are you ?",
        "  reply     [token limit] and and and and and and and and and and and and and a…",
        f"evaluating  ━━━━━━━━━━━━━{' ' * 40}  3/12 examples",
    ]


def test_the_live_view_at_forty_columns() -> None:
    events = (WITH_EVALUATIONS, *STEPS, ON_CPU, EVALUATED, SAVED)
    assert frame_lines(*events, show_samples=1, width=40) == [
        "step 120/300  ━━━━        40%  1:34 left",
        "training    loss 7.225",
        "            learning rate 3.3e-04",
        "            gradient norm 1.23",
        "            epoch 2.79",
        "loss curve  ██▇▇▆▆▅▄▄▃▃▂▂▁  7.22 to 9.97",
        "speed       1.2k tokens/s  60 GFLOP/s",
        "            1.0% waiting for data",
        "device      1.5 GiB memory  peak 1.8 GiB",
        "            CPUs 93% busy",
        "validation  step 100  loss 3.210",
        "            perplexity 24.8  bleu-2 4.12",
        "            bleu-4 1.50  nist-2 0.40",
        "            nist-4 0.41",
        "best so far loss 3.210 at step 100",
        "            bleu-4 1.50 at step 100",
        "saved       step 100  runs/convo/checkp…",
        "  user      how are you ?",
        "  reply     i am fine .",
    ]


def test_several_files_have_lines_of_their_losses() -> None:
    file = {"weight": 1, "num_dialogues": 1, "num_tokens": 9, "share": 0.5}
    files = tuple({"path": path, **file} for path in ("web.jsonl", "chats.jsonl"))
    started = replace(STARTED, files=files, validation_files=("v.jsonl", "w.jsonl"))
    one = replace(step(100), loss_by_file=(2.0, 3.0), num_targets_by_file=(32, 32))
    lines = frame_lines(started, one, replace(evaluation(100), loss_by_file=(1.5, 2.5)))
    assert [line for line in lines if line.startswith("by file")] == [
        "by file     web.jsonl 2.000  chats.jsonl 3.000",
        "by file     v.jsonl 1.500  w.jsonl 2.500",
    ]


def test_a_terminal_with_few_rows_keeps_the_rows_that_matter_most() -> None:
    lines = frame_lines(WITH_EVALUATIONS, *STEPS, EVALUATED, SAVED, height=7)
    assert [line[:11].strip() for line in lines] == [
        "step 120/30",
        "training",
        "validation",
        "",
        "best so far",
    ]


def test_an_open_live_view_says_how_to_stop() -> None:
    terminal = FakeTerminal()
    console = Console(
        file=terminal, force_terminal=True, width=80, height=24, color_system=None, _environ={}
    )
    with LiveProgress(console, show_samples=0, clock=FakeClock()) as live:
        live(STARTED)
        console.print(live.frame())
        assert "to stop     Ctrl-C saves and stops\n" in terminal.getvalue()
        live(RunFinished(300, "all 300 steps done"))
        assert "to stop" not in str([line.text for line in console.render_lines(live.frame())[0]])


def test_the_best_scores_are_kept_from_before_a_resume() -> None:
    started = replace(
        WITH_EVALUATIONS, first_step=101, best=(BestScore("loss", 2.5, 60), BestScore("x", 3, 80))
    )
    lines = frame_lines(started, step(101), replace(evaluation(101), best=("metric",)))
    assert "best so far loss 2.500 at step 60  bleu-4 1.50 at step 101" in lines


def test_speed_is_compared_with_the_peak_of_a_known_device() -> None:
    fast = replace(step(1), flops=200e12)
    assert "400 TFLOP/s (40% of the device's peak)" in " ".join(
        frame_lines(replace(STARTED, peak_flops=989e12), fast)
    )


def test_a_gpu_has_one_line_at_eighty_columns() -> None:
    assert frame_lines(ON_GPU) == [
        "device      12.0 GiB memory  40.0 of 79.0 GiB in use  GPU 97% busy  64 °C  412 W"
    ]
    assert frame_lines(ON_GPU, width=40) == [
        "device      12.0 GiB memory",
        "            40.0 of 79.0 GiB in use",
        "            GPU 97% busy  64 °C  412 W",
    ]


@pytest.mark.parametrize(
    ("usage", "shown"),
    [
        (GpuUsage(), []),
        (GpuUsage(2**30, 2**31), ["device      1.0 GiB memory"]),
        (GpuUsage(used_bytes=2**30, utilization=0.0), ["device      1.0 GiB in use  GPU 0% busy"]),
    ],
)
def test_values_that_are_not_available_are_left_out(usage: GpuUsage, shown: list[str]) -> None:
    assert frame_lines(replace(ON_GPU, gpu=usage)) == shown
    assert frame_lines(DeviceMeasured(1, None, None, None)) == []


def test_before_the_first_step_the_bar_shows_the_first_step() -> None:
    (line,) = frame_lines(STARTED, 3)
    assert line.startswith("step 0/300  ")
    assert line.endswith("0%  0:03 elapsed  first step")


def test_time_left_without_a_measured_evaluation_says_so() -> None:
    bar = frame_lines(WITH_EVALUATIONS, *STEPS[:40])[0]
    assert bar.endswith("  6%  0:10 elapsed  2:20 left + evaluations")


def test_scores_are_one_line_on_a_wide_terminal() -> None:
    (line,) = frame_lines(evaluation(100), width=120)
    assert line.startswith("validation  step 100  loss 3.210  perplexity 24.8  bleu-2 4.12")
    assert line.endswith("nist-2 0.40  nist-4 0.41")


@pytest.mark.parametrize("ended", [Progress("encoding", 9, 9), STARTED, step(1), evaluation(1)])
def test_a_stage_is_shown_until_it_ends(ended: Event) -> None:
    assert frame_lines(Progress("encoding", 3, 9))[0].startswith("encoding  ━")
    assert not any(
        line.startswith("encoding") for line in frame_lines(Progress("encoding", 3, 9), ended)
    )


def test_a_stage_without_an_end_counts() -> None:
    assert frame_lines(Progress("reading", 1234))[0].endswith("1,234")


def test_the_live_view_shows_bytes_and_the_time_left() -> None:
    halves = (
        Progress("reading", 0, 3 * 10**9, "bytes"),
        20,
        Progress("reading", 10**9, 3 * 10**9, "bytes"),
    )
    assert frame_lines(*halves)[0].endswith("1.0/3.0 GB  0:40 left")


def test_a_stage_that_cannot_count_shows_no_number() -> None:
    assert frame_lines(Progress("training the tokenizer", 0))[0].endswith("━")


@given(width=st.integers(20, 200), height=st.integers(3, 60), show_samples=st.integers(0, 40))
def test_the_live_view_fits_any_terminal(width: int, height: int, show_samples: int) -> None:
    saved = CheckpointSaved(1, Path("x" * 300))
    samples = tuple(sample("널 " * 300) for _ in range(40))
    evaluating = Progress("evaluating", 1, 9)
    events = (STARTED, step(1), ON_GPU, evaluation(1, samples), saved, evaluating)
    lines = frame_lines(*events, width=width, height=height, show_samples=show_samples)
    assert len(lines) <= height - 2 or len(lines) == 1
    assert all(Console(width=999).measure(line).maximum <= width for line in lines)


def test_foreign_text_in_the_live_view_is_harmless() -> None:
    event = evaluation(1, (SampleReply((("user", HOSTILE),), "x", HOSTILE, True),))
    lines = frame_lines(event, CheckpointSaved(1, Path(HOSTILE)), Progress(HOSTILE, 1))
    assert f"  user      {HARMLESS}" in lines
    assert f"  reply     {HARMLESS}" in lines
    assert not set("\x1b\x07\x08\x9b\r") & set("\n".join(lines))


def test_a_closed_live_view_leaves_its_last_frame_and_shows_the_cursor() -> None:
    terminal = FakeTerminal()
    console = Console(
        file=terminal, force_terminal=True, width=80, height=24, color_system=None, _environ={}
    )
    with LiveProgress(console, show_samples=1, clock=FakeClock()) as live:
        live(STARTED)
        live(Notice("3 duplicates", is_warning=True))
        live(step(1))
        live(evaluation(1, (sample(HOSTILE),)))
        live(evaluation(2, (sample(HOSTILE),)))
        live(RunFinished(2, "all 2 steps done"))
    written = terminal.getvalue()
    assert "warning: 3 duplicates\n" in written
    assert written.index("validation  step 1") < written.index("validation  step 2")
    assert written.rindex("step 1/300") < written.index(
        "finished at step 2 after 0:00: all 2 steps done\n"
    )
    assert HARMLESS in written
    assert "\x1b[2J" not in written
    assert "title" not in written
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")


def test_an_error_restores_the_terminal() -> None:
    terminal = FakeTerminal()
    console = Console(
        file=terminal, force_terminal=True, width=80, height=24, color_system=None, _environ={}
    )
    stderr = sys.stderr
    live = LiveProgress(console, show_samples=1, clock=FakeClock())
    with pytest.raises(KeyError), live:
        raise KeyError
    assert terminal.getvalue().rindex("\x1b[?25h") > terminal.getvalue().rindex("\x1b[?25l")
    assert sys.stderr is stderr
