"""What people see of a run: exact lines in a log, a small live view on a terminal, and nothing foreign that acts."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from convo_cli.cli.views.meter import Meter, sparkline
from convo_cli.cli.views.progress import LiveProgress, PlainProgress, make_progress
from convo_cli.events import (
    CheckpointSaved,
    EvaluationDone,
    Event,
    Notice,
    Progress,
    RunFinished,
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
    training=TokenCounts(11_118, 11_500, 382, 1_363_000, {"assistant": 450_000, "user": 150_000}, 104.0, 1_790),
    validation=TokenCounts(852, 852, 0, 104_000, {"assistant": 35_000, "user": 0}, 99.5, 480),
    first_step=1,
    max_steps=300,
    steps_per_epoch=43,
)
HOSTILE = "\x1b[2J\x1b]0;title\x07[/bold] [red]ok[/red]\x9b31m\r\nand\x08 more"
HARMLESS = "[/bold] [red]ok[/red] and more"
SCORES = {"bleu-2": 4.125, "bleu-4": 1.5, "nist-2": 0.4, "nist-4": 0.41}


class FakeClock:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class FakeTerminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def step(number: int, *, loss: float = 5.1234, max_steps: int = 300, seconds: float = 0.5) -> StepDone:
    numbers = (loss, 3.3e-4, 1.234, 600, 300, seconds, 600 * number)
    return StepDone(number, max_steps, *numbers, number / 43, seconds / 100, seconds * 6e10, 3 * 2**29)


def evaluation(number: int, samples: tuple[SampleReply, ...] = ()) -> EvaluationDone:
    return EvaluationDone(number, 3.21, 24.779, 100, 2.0, SCORES, samples)


def sample(reply: str, *, stopped: bool = True) -> SampleReply:
    return SampleReply((("user", "hi"), ("assistant", "hello"), ("user", "how are you ?")), "fine", reply, stopped)


def plain_lines(*events: Event | float, log_every: int = 10, show_samples: int = 3) -> list[str]:
    """What the plain reporter prints; a number among the events lets so many seconds pass."""
    clock, output = FakeClock(), io.StringIO()
    emit = PlainProgress(Console(file=output), log_every=log_every, show_samples=show_samples, clock=clock)
    for event in events:
        if isinstance(event, (int, float)):
            clock.now += event
        else:
            emit(event)
    return output.getvalue().splitlines()


def frame_lines(*events: Event | float, show_samples: int = 3, width: int = 80, height: int = 24) -> list[str]:
    """The live view after the events, without colours; what scrolled by above it is not part of it."""
    clock = FakeClock()
    silent = Console(file=io.StringIO(), width=width, height=height)
    live = LiveProgress(silent, show_samples=show_samples, clock=clock)
    for event in events:
        if isinstance(event, (int, float)):
            clock.now += event
        else:
            live(event)
    console = Console(file=io.StringIO(), width=width, height=height, record=True, color_system=None)
    console.print(live.frame())
    return [line.rstrip() for line in console.export_text().splitlines()]


# ---- plain lines


def test_the_start_of_a_run_is_a_small_table() -> None:
    assert plain_lines(STARTED) == [
        "run         runs/convo",
        "device      cpu, fp32",
        "parameters  12,345,678",
        "steps       1 to 300, 43 per epoch",
        "template: turns                       training            validation",
        "─" * 68,
        "dialogues                               11,118                   852",
        "tokens of a dialogue     median 104, max 1,790   median 100, max 480",
        "over max_length 512    382 (3.44%), in windows                     0",
        "examples                                11,500                   852",
        "tokens                               1,363,000               104,000",
        "assistant targets                450,000 (33%)        35,000 (33.7%)",
        "user targets                     150,000 (11%)                0 (0%)",
    ]


def test_a_step_is_one_line_at_the_first_every_tenth_and_the_last() -> None:
    steps = [event for number in range(1, 26) for event in (0.5, step(number, max_steps=25))]
    assert plain_lines(*steps) == [
        "step 1/25  loss 5.123  lr 3.3e-04  grad 1.23  1.2k tok/s  eta 0:12",
        "step 10/25  loss 5.123  lr 3.3e-04  grad 1.23  1.2k tok/s  eta 0:08",
        "step 20/25  loss 5.123  lr 3.3e-04  grad 1.23  1.2k tok/s  eta 0:02",
        "step 25/25  loss 5.123  lr 3.3e-04  grad 1.23  1.2k tok/s  eta 0:00",
    ]


def test_the_first_step_of_a_resumed_run_is_shown_too() -> None:
    assert [line.split()[1] for line in plain_lines(*map(step, range(104, 112)))] == ["104/300", "110/300"]


def test_the_loss_of_a_line_is_that_step_s_own_as_in_the_log() -> None:
    lines = plain_lines(step(1, loss=9.0), step(2, loss=1.0), log_every=1)
    assert [line.split()[3] for line in lines] == ["9.000", "1.000"]


def test_a_run_that_stops_early_still_shows_its_last_step() -> None:
    lines = plain_lines(STARTED, *map(step, range(1, 14)), 83.4, RunFinished(13, "no improvement in 3 evaluations"))
    assert [line.split("  ")[0] for line in lines[-3:-1]] == ["step 10/300", "step 13/300"]
    assert lines[-1] == "finished at step 13 after 1:23: no improvement in 3 evaluations"


def test_the_last_step_is_shown_once() -> None:
    lines = plain_lines(step(1), step(300), RunFinished(300, "all 300 steps done"))
    assert [line.split("  ")[0] for line in lines[:-1]] == ["step 1/300", "step 300/300"]


def test_an_evaluation_is_a_line_and_its_replies_are_short_indented_lines() -> None:
    samples = (sample("i am fine ."), sample("and and and", stopped=False), SampleReply((), "ok", " ", True))
    assert plain_lines(evaluation(100, samples)) == [
        "eval step 100  loss 3.210  ppl 24.8  bleu-2 4.12  bleu-4 1.50  nist-2 0.40  nist-4 0.41",
        "  user      how are you ?",
        "  reply     i am fine .",
        "  reference fine",
        "  user      how are you ?",
        "  reply     [token limit] and and and",
        "  reference fine",
        "  reply     (empty)",
        "  reference ok",
    ]


@pytest.mark.parametrize(("show_samples", "num_lines"), [(0, 1), (1, 4), (9, 7)])
def test_only_so_many_replies_are_shown(show_samples: int, num_lines: int) -> None:
    lines = plain_lines(evaluation(1, (sample("a"), sample("b"))), show_samples=show_samples)
    assert len(lines) == num_lines


def test_a_long_reply_is_cut_to_one_short_line() -> None:
    reply = plain_lines(evaluation(1, (sample("널 " * 500),)))[2]
    assert reply.endswith("…")
    assert Console().measure(reply).maximum <= 120


def test_a_checkpoint_is_a_line() -> None:
    saved = CheckpointSaved(100, Path("runs/convo/checkpoints/step-00000100"))
    assert plain_lines(saved) == ["saved step 100  runs/convo/checkpoints/step-00000100"]


@pytest.mark.parametrize(
    ("best", "shown"),
    [((), ""), (("loss",), "  best loss so far"), (("loss", "metric"), "  best loss and metric so far")],
)
def test_an_evaluation_says_what_it_is_the_best_by(best: tuple[str, ...], shown: str) -> None:
    event = EvaluationDone(1, 1.0, 2.72, 9, 1.0, {"bleu-2": 4.0}, best=best)
    assert plain_lines(event) == [f"eval step 1  loss 1.000  ppl 2.72  bleu-2 4.00{shown}"]


def test_long_lines_are_not_broken_in_a_log() -> None:
    path = Path("/a" * 100)
    assert plain_lines(CheckpointSaved(1, path)) == [f"saved step 1  {path}"]


def test_notices_and_warnings_are_lines() -> None:
    assert plain_lines(Notice("precision: fp32"), Notice("3 duplicates", is_warning=True)) == [
        "precision: fp32",
        "warning: 3 duplicates",
    ]


def test_a_stage_says_something_only_every_few_seconds() -> None:
    short: list[Event | float] = [Progress("reading", 1), 1, Progress("reading", 2)]
    long: list[Event | float] = [e for done in range(0, 1300, 100) for e in (Progress("encoding", done, 1200), 1)]
    assert plain_lines(*short, *long) == ["encoding 500/1,200", "encoding 1,000/1,200"]
    assert plain_lines(Progress("reading", 0), 60, Progress("reading", 12_345)) == ["reading 12,345"]


def test_a_stage_in_bytes_says_how_long_it_will_take() -> None:
    stage = [Progress("reading", done * 10**6, 60 * 10**6, "bytes") for done in (0, 20, 40)]
    assert plain_lines(stage[0], 5, stage[1], 5, stage[2]) == [
        "reading 20.0/60.0 MB  0:10 left",
        "reading 40.0/60.0 MB  0:05 left",
    ]
    (line,) = plain_lines(Progress("reading", 1, None, "bytes"), 60, Progress("reading", 2_345 * 10**6, None, "bytes"))
    assert line == "reading 2.3 GB"
    assert plain_lines(stage[0], 5, stage[0]) == ["reading 0.0/60.0 MB"]


def test_the_next_evaluation_starts_a_stage_of_its_own() -> None:
    lines = plain_lines(Progress("evaluating", 0, 9), step(1), 60, Progress("evaluating", 0, 9))
    assert [line for line in lines if line.startswith("evaluating")] == []


def test_foreign_text_in_a_log_is_harmless() -> None:
    hostile = SampleReply(((HOSTILE, HOSTILE),), HOSTILE, HOSTILE, True)
    event = EvaluationDone(1, 1.0, 2.7, 9, 1.0, {HOSTILE: 1.0}, (hostile,))
    saved = CheckpointSaved(1, Path(HOSTILE))
    output = "\n".join(plain_lines(event, saved, Notice(HOSTILE), Progress(HOSTILE, 0), 9, Progress(HOSTILE, 1)))
    assert output.count("[/bold] [red]ok[/red]") == 7
    assert not set("\x1b\x07\x08\x9b\r") & set(output)


# ---- the live view


def test_the_live_view_at_eighty_columns() -> None:
    saved = CheckpointSaved(100, Path("runs/convo/checkpoints/step-00000100"))
    steps = [event for number in range(1, 121) for event in (0.5, step(number, loss=10 - number / 40))]
    samples = (sample("i am fine ."), sample("and " * 99, stopped=False), sample("unseen"))
    lines = frame_lines(STARTED, *steps, evaluation(100, samples), saved, Progress("evaluating", 3, 12), show_samples=2)
    assert lines == [
        f"step 120/300  ━━━━━━━━━━━━━━━━━╸{' ' * 26}  40%  1:00  1:30 left",
        "loss 7.225  lr 3.3e-04  grad 1.23  1.2k tok/s  epoch 2.79",
        "████████▇▇▇▇▇▇▇▇▆▆▆▆▆▆▆▆▅▅▅▅▅▅▅▅▄▄▄▄▄▄▄▄▃▃▃▃▃▃▃▃▂▂▂▂▂▂▂▂▁▁▁▁  7.22 to 9.97",
        "60 GFLOP/s  1.5 GiB  waiting 1.0%",
        "eval step 100  loss 3.210  ppl 24.8",
        "  bleu-2 4.12  bleu-4 1.50  nist-2 0.40  nist-4 0.41",
        "saved step 100  runs/convo/checkpoints/step-00000100",
        "  user      how are you ?",
        "  reply     i am fine .",
        "  user      how are you ?",
        "  reply     [token limit] and and and and and and and and and and and and and a…",
        f"evaluating  {'━' * 15}╸{' ' * 46}  3/12",
    ]


def test_speed_is_beside_what_the_device_is_made_for_where_that_is_known() -> None:
    fast = replace(step(1), flops=200e12)
    assert "400 TFLOP/s (40% of the device's peak)  1.5 GiB" in " ".join(
        frame_lines(replace(STARTED, peak_flops=989e12), fast)
    )


def test_before_the_first_step_the_bar_waits_where_the_run_goes_on() -> None:
    (line,) = frame_lines(STARTED, 3)
    assert line.startswith("step 0/300  ")
    assert line.endswith("0%  0:03  first step")


def test_scores_stay_on_one_line_where_there_is_room() -> None:
    assert frame_lines(evaluation(100), width=100)[0].startswith("eval step 100  loss 3.210  ppl 24.8  bleu-2 4.12")


@pytest.mark.parametrize("ended", [Progress("encoding", 9, 9), STARTED, step(1), evaluation(1)])
def test_a_stage_is_shown_until_it_ends(ended: Event) -> None:
    assert frame_lines(Progress("encoding", 3, 9))[0].startswith("encoding  ━")
    assert not any(line.startswith("encoding") for line in frame_lines(Progress("encoding", 3, 9), ended))


def test_a_stage_without_an_end_counts() -> None:
    assert frame_lines(Progress("reading", 1234))[0].endswith("1,234")


def test_the_live_view_shows_bytes_and_the_time_left() -> None:
    halves = (Progress("reading", 0, 3 * 10**9, "bytes"), 20, Progress("reading", 10**9, 3 * 10**9, "bytes"))
    assert frame_lines(*halves)[0].endswith("1.0/3.0 GB  0:40 left")


def test_a_stage_that_cannot_count_shows_no_number() -> None:
    assert frame_lines(Progress("training the tokenizer", 0))[0].endswith("━")
    stage = Progress("training the tokenizer", 0)
    assert plain_lines(stage, 9, stage) == ["training the tokenizer"]


@given(width=st.integers(20, 200), height=st.integers(3, 60), show_samples=st.integers(0, 40))
def test_the_live_view_fits_any_terminal(width: int, height: int, show_samples: int) -> None:
    saved = CheckpointSaved(1, Path("x" * 300))
    samples = tuple(sample("널 " * 300) for _ in range(40))
    events = (STARTED, step(1), evaluation(1, samples), saved, Progress("evaluating", 1, 9))
    lines = frame_lines(*events, width=width, height=height, show_samples=show_samples)
    assert len(lines) <= max(height - 1, 7)
    assert all(Console(width=999).measure(line).maximum <= width for line in lines)


def test_foreign_text_in_the_live_view_is_harmless() -> None:
    event = evaluation(1, (SampleReply((("user", HOSTILE),), "x", HOSTILE, True),))
    lines = frame_lines(event, CheckpointSaved(1, Path(HOSTILE)), Progress(HOSTILE, 1))
    assert f"  user      {HARMLESS}" in lines
    assert f"  reply     {HARMLESS}" in lines
    assert not set("\x1b\x07\x08\x9b\r") & set("\n".join(lines))


def test_a_session_on_a_terminal_leaves_its_history_and_last_frame_and_shows_the_cursor_again() -> None:
    terminal = FakeTerminal()
    console = Console(file=terminal, force_terminal=True, width=80, height=24, color_system=None, _environ={})
    with LiveProgress(console, show_samples=1, clock=FakeClock()) as live:
        live(STARTED)
        live(Notice("3 duplicates", is_warning=True))
        live(step(1))
        live(evaluation(1, (sample(HOSTILE),)))
        live(evaluation(2, (sample(HOSTILE),)))
        live(RunFinished(2, "all 2 steps done"))
    written = terminal.getvalue()
    assert "warning: 3 duplicates\n" in written
    assert written.index("eval step 1  loss") < written.index("eval step 2  loss")
    assert written.rindex("step 1/300") < written.index("finished at step 2 after 0:00: all 2 steps done\n")
    assert HARMLESS in written
    assert "\x1b[2J" not in written
    assert "title" not in written
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")


def test_an_error_on_the_way_gives_the_terminal_back() -> None:
    terminal = FakeTerminal()
    console = Console(file=terminal, force_terminal=True, width=80, height=24, color_system=None, _environ={})
    stderr = sys.stderr
    live = LiveProgress(console, show_samples=1, clock=FakeClock())
    with pytest.raises(KeyError), live:
        raise KeyError
    assert terminal.getvalue().rindex("\x1b[?25h") > terminal.getvalue().rindex("\x1b[?25l")
    assert sys.stderr is stderr


# ---- which of them


@pytest.mark.parametrize(
    ("environment", "reporter"),
    [
        ({"TERM": "xterm"}, LiveProgress),
        ({"TERM": "dumb"}, PlainProgress),
        ({"TERM": "xterm", "NO_COLOR": "1"}, PlainProgress),
        ({"TERM": "xterm", "CI": "true"}, PlainProgress),
    ],
)
def test_a_terminal_gets_the_live_view_unless_it_asks_for_plain_lines(
    environment: dict[str, str], reporter: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CI", "NO_COLOR", "FORCE_COLOR", "TTY_INTERACTIVE", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with make_progress(Console(file=FakeTerminal()), is_quiet=False, log_every=10, show_samples=3) as emit:
        assert type(emit) is reporter


def test_a_pipe_gets_plain_lines_even_where_colours_are_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    console = Console(file=io.StringIO(), force_terminal=True, force_interactive=True)
    with make_progress(console, is_quiet=False, log_every=10, show_samples=3) as emit:
        assert type(emit) is PlainProgress


def test_a_terminal_without_unicode_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    terminal = FakeTerminal()
    terminal.encoding = "ascii"
    with make_progress(Console(file=terminal), is_quiet=False, log_every=10, show_samples=3) as emit:
        assert type(emit) is PlainProgress


def test_quiet_shows_warnings_only() -> None:
    output = io.StringIO()
    with make_progress(Console(file=output), is_quiet=True, log_every=1, show_samples=3) as emit:
        for event in (STARTED, step(1), evaluation(1), Notice("chatter"), Notice("beware", is_warning=True)):
            emit(event)
        emit(RunFinished(1, "done"))
    assert output.getvalue() == "warning: beware\n"


def test_importing_the_module_imports_no_rich() -> None:
    code = "import sys, convo_cli.cli.views.progress; sys.exit(bool({'rich', 'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- numbers


def test_the_time_left_counts_pauses_but_not_the_slow_first_step() -> None:
    clock = FakeClock()
    meter = Meter(clock)
    clock.now += 60
    meter.add(step(1, seconds=60))
    assert meter.seconds_left() == 299 * 60
    for number in range(2, 12):
        clock.now += 1 if number != 5 else 11
        meter.add(step(number, seconds=1))
    assert meter.seconds_left() == pytest.approx(289 * 2)
    assert meter.elapsed() == 80


def test_smoothing_begins_with_the_first_loss_and_follows_the_last_ones() -> None:
    meter = Meter(FakeClock())
    meter.add(step(1, loss=10))
    assert meter.loss == 10
    for number in range(2, 200):
        meter.add(step(number, loss=2))
    assert meter.loss == pytest.approx(2, abs=1e-6)


def test_a_step_that_took_no_time_has_no_speed() -> None:
    meter = Meter(FakeClock())
    meter.add(step(1, seconds=0))
    assert meter.tokens_per_second == 0


def test_the_course_of_the_loss_stays_small_and_spans_the_run() -> None:
    meter = Meter(FakeClock())
    for number in range(1, 10_001):
        meter.add(step(number, loss=10_000 - number))
    gaps = {round(before - after) for before, after in zip(meter.losses[20:], meter.losses[21:], strict=False)}
    assert 200 < len(meter.losses) <= 480
    assert meter.losses[0] > 9_900
    assert meter.losses[-1] < 100
    assert len(gaps) == 1, "evenly spread"


def test_a_sparkline_rises_with_its_values() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([7, 7, 0, 0], 2) == "█▁"
    assert sparkline([3, 3, 3], 8) == "▁▁▁"


@given(values=st.lists(st.floats(width=32), max_size=200), width=st.integers(-3, 60))
def test_a_sparkline_of_any_numbers_fits_its_width(values: list[float], width: int) -> None:
    line = sparkline(values, width)
    num_finite = sum(value - value == 0 for value in values)
    assert len(line) == min(max(0, width), num_finite)
    assert set(line) <= set("▁▂▃▄▅▆▇█")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0:00"), (59.6, "1:00"), (83, "1:23"), (3723, "1:02:03"), (2 * 86400 + 3723, "2d 1:02:03")],
)
def test_durations_are_as_short_as_they_can_be(seconds: float, shown: str) -> None:
    assert plain_lines(STARTED, seconds, RunFinished(1, "done"))[-1] == f"finished at step 1 after {shown}: done"


@pytest.mark.parametrize(
    ("perplexity", "shown"),
    [(1.034, "1.03"), (24.779, "24.8"), (999.4, "999"), (12_345.0, "12.3k"), (1e12, "1T"), (float("inf"), "inf")],
)
def test_large_numbers_are_shortened(perplexity: float, shown: str) -> None:
    assert plain_lines(EvaluationDone(1, 1.0, perplexity, 9, 1.0)) == [f"eval step 1  loss 1.000  ppl {shown}"]
