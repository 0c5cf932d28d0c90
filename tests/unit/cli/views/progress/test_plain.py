"""The plain log: exact lines, and foreign text that cannot act."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from convo_cli.cli.views.progress.plain import PlainProgress
from convo_cli.events import (
    BestScore,
    CheckpointSaved,
    EvaluationDone,
    Event,
    Notice,
    Progress,
    RunFinished,
    SampleReply,
)
from tests.run_events import HOSTILE, STARTED, FakeClock, evaluation, sample, step

SHARE = {"weight": 1, "num_dialogues": 1, "num_tokens": 9, "share": 0.5}


def plain_lines(*events: Event | float, log_every: int = 10, show_samples: int = 3) -> list[str]:
    """What the plain reporter prints; a number among the events lets so many seconds pass."""
    clock, output = FakeClock(), io.StringIO()
    emit = PlainProgress(
        Console(file=output), log_every=log_every, show_samples=show_samples, clock=clock
    )
    for event in events:
        if isinstance(event, (int, float)):
            clock.now += event
        else:
            emit(event)
    return output.getvalue().splitlines()


def test_the_start_of_a_run_is_a_small_table() -> None:
    assert plain_lines(STARTED) == [
        "run         runs/convo",
        "device      cpu, fp32",
        "parameters  12,345,678",
        "steps       1 to 300, 43 per epoch",
        "to stop     Ctrl-C or `touch runs/convo/stop` saves and stops",
        "template: turns                                training            validation",
        "─" * 77,
        "dialogues                                        11,118                   852",
        "tokens per dialogue               median 104, max 1,790   median 100, max 480",
        "over max_length 512             382 (3.44%), in windows                     0",
        "examples                                         11,500                   852",
        "tokens                                        1,343,000               104,000",
        "tokens of the examples                        1,363,000               104,000",
        "assistant targets (of tokens)           450,000 (33.5%)        35,000 (33.7%)",
        "user targets (of tokens)                150,000 (11.2%)                0 (0%)",
    ]


def test_a_step_is_one_line_at_the_first_every_tenth_and_the_last() -> None:
    steps = [event for number in range(1, 26) for event in (0.5, step(number, max_steps=25))]
    assert plain_lines(*steps) == [
        "step 1/25  loss 5.123  lr 3.3e-04  grad norm 1.23  1.2k tokens/s  eta 0:12",
        "step 10/25  loss 5.123  lr 3.3e-04  grad norm 1.23  1.2k tokens/s  eta 0:08",
        "step 20/25  loss 5.123  lr 3.3e-04  grad norm 1.23  1.2k tokens/s  eta 0:02",
        "step 25/25  loss 5.123  lr 3.3e-04  grad norm 1.23  1.2k tokens/s  eta 0:00",
    ]


def test_the_first_step_of_a_resumed_run_is_shown_too() -> None:
    assert [line.split()[1] for line in plain_lines(*map(step, range(104, 112)))] == [
        "104/300",
        "110/300",
    ]


def test_the_loss_of_a_line_is_not_smoothed() -> None:
    lines = plain_lines(step(1, loss=9.0), step(2, loss=1.0), log_every=1)
    assert [line.split()[3] for line in lines] == ["9.000", "1.000"]


def test_a_run_that_stops_early_still_shows_its_last_step() -> None:
    lines = plain_lines(
        STARTED, *map(step, range(1, 14)), 83.4, RunFinished(13, "no improvement in 3 evaluations")
    )
    assert [line.split("  ")[0] for line in lines[-3:-1]] == ["step 10/300", "step 13/300"]
    assert lines[-1] == "finished at step 13 after 1:23: no improvement in 3 evaluations"


def test_the_last_step_is_shown_once() -> None:
    lines = plain_lines(step(1), step(300), RunFinished(300, "all 300 steps done"))
    assert [line.split("  ")[0] for line in lines[:-1]] == ["step 1/300", "step 300/300"]


def test_an_evaluation_is_a_line_and_its_replies_are_short_indented_lines() -> None:
    samples = (
        sample("i am fine ."),
        sample("and and and", stopped=False),
        SampleReply((), "ok", " ", True),
    )
    scores = "bleu-2 4.12  bleu-4 1.50  nist-2 0.40  nist-4 0.41"
    assert plain_lines(evaluation(100, samples)) == [
        f"eval step 100  loss 3.210  perplexity 24.8  {scores}",
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
    [
        ((), ""),
        (("loss",), "  best loss so far"),
        (("loss", "metric"), "  best loss and bleu-2 so far"),
    ],
)
def test_an_evaluation_says_what_it_is_the_best_by(best: tuple[str, ...], shown: str) -> None:
    started = replace(STARTED, metric="bleu-2")
    event = EvaluationDone(1, 1.0, 2.72, 9, 1.0, {"bleu-2": 4.0}, best=best)
    line = plain_lines(started, event)[-1]
    assert line == f"eval step 1  loss 1.000  perplexity 2.72  bleu-2 4.00{shown}"


def test_an_evaluation_that_is_not_the_best_names_the_best() -> None:
    best = EvaluationDone(20, 1.0, 2.72, 9, 1.0, best=("loss",))
    later = EvaluationDone(40, 1.5, 4.48, 9, 1.0)
    line = "eval step 40  loss 1.500  perplexity 4.48  best loss 1.000 at step 20"
    assert plain_lines(best, later)[-1] == line
    resumed = replace(STARTED, best=(BestScore("loss", 1.0, 20),))
    assert plain_lines(resumed, later)[-1] == line


def test_the_time_left_includes_the_evaluations_once_one_is_measured() -> None:
    started = replace(STARTED, steps_per_evaluation=10, max_steps=25)
    events = [e for n in range(1, 11) for e in (1, step(n, max_steps=25))]
    evaluated = replace(evaluation(10), seconds=60.0)
    lines = plain_lines(started, *events, 60, evaluated, 1, step(11, max_steps=25), log_every=1)
    assert lines[-3].endswith("eta 0:15 + evaluations")
    assert lines[-1].endswith("eta 2:14"), "14 steps, and the evaluations at 20 and at 25"


def test_long_lines_are_not_broken_in_a_log() -> None:
    path = Path("/a" * 100)
    assert plain_lines(CheckpointSaved(1, path)) == [f"saved step 1  {path}"]


def test_notices_and_warnings_are_lines() -> None:
    assert plain_lines(Notice("precision: fp32"), Notice("3 duplicates", is_warning=True)) == [
        "precision: fp32",
        "warning: 3 duplicates",
    ]


def test_a_stage_is_a_line_when_it_begins_and_every_few_seconds() -> None:
    short: list[Event | float] = [Progress("reading", 0), 1, Progress("reading", 2)]
    long: list[Event | float] = [
        event
        for done in range(0, 1300, 100)
        for event in (Progress("encoding", done, 1200, "dialogues"), 1)
    ]
    assert plain_lines(*short, *long) == [
        "reading",
        "encoding (1,200 dialogues)",
        "encoding 500/1,200 dialogues",
        "encoding 1,000/1,200 dialogues",
    ]
    assert plain_lines(Progress("reading", 0), 60, Progress("reading", 12_345)) == [
        "reading",
        "reading 12,345",
    ]


def test_a_stage_in_bytes_says_how_long_it_will_take() -> None:
    stage = [Progress("reading", done * 10**6, 60 * 10**6, "bytes") for done in (0, 20, 40)]
    assert plain_lines(stage[0], 5, stage[1], 5, stage[2]) == [
        "reading (60.0 MB)",
        "reading 20.0/60.0 MB  0:10 left",
        "reading 40.0/60.0 MB  0:05 left",
    ]
    unknown = [Progress("reading", done, None, "bytes") for done in (0, 2_345 * 10**6)]
    assert plain_lines(unknown[0], 60, unknown[1]) == ["reading", "reading 2.3 GB"]
    assert plain_lines(stage[0], 5, stage[0])[1:] == ["reading 0.0/60.0 MB"]


def test_a_stage_that_cannot_count_shows_no_number() -> None:
    stage = Progress("training the tokenizer", 0)
    assert plain_lines(stage, 9, stage) == ["training the tokenizer"] * 2


def test_one_of_a_kind_is_counted_in_the_singular() -> None:
    assert plain_lines(Progress("encoding", 0, 1, "dialogues")) == ["encoding (1 dialogue)"]


def test_the_next_evaluation_starts_a_stage_of_its_own() -> None:
    stage = Progress("evaluating", 0, 9, "examples")
    lines = plain_lines(stage, step(1), 2, stage, evaluation(1), 2, stage)
    assert [line for line in lines if line.startswith("evaluating")] == [
        "evaluating (9 examples)"
    ] * 3


def test_foreign_text_in_a_log_is_harmless() -> None:
    hostile = SampleReply(((HOSTILE, HOSTILE),), HOSTILE, HOSTILE, True)
    event = EvaluationDone(1, 1.0, 2.7, 9, 1.0, {HOSTILE: 1.0}, (hostile,))
    saved = CheckpointSaved(1, Path(HOSTILE))
    output = "\n".join(
        plain_lines(event, saved, Notice(HOSTILE), Progress(HOSTILE, 0), 9, Progress(HOSTILE, 1))
    )
    assert output.count("[/bold] [red]ok[/red]") == 8
    assert not set("\x1b\x07\x08\x9b\r") & set(output)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0:00"),
        (59.6, "1:00"),
        (83, "1:23"),
        (3723, "1:02:03"),
        (2 * 86400 + 3723, "2d 1:02:03"),
    ],
)
def test_durations_are_as_short_as_they_can_be(seconds: float, shown: str) -> None:
    assert (
        plain_lines(STARTED, seconds, RunFinished(1, "done"))[-1]
        == f"finished at step 1 after {shown}: done"
    )


@pytest.mark.parametrize(
    ("perplexity", "shown"),
    [
        (1.034, "1.03"),
        (24.779, "24.8"),
        (999.4, "999"),
        (12_345.0, "12.3k"),
        (1e12, "1T"),
        (float("inf"), "inf"),
    ],
)
def test_large_numbers_are_shortened(perplexity: float, shown: str) -> None:
    assert plain_lines(EvaluationDone(1, 1.0, perplexity, 9, 1.0)) == [
        f"eval step 1  loss 1.000  perplexity {shown}"
    ]


def test_several_files_have_a_line_of_their_losses() -> None:
    """Each under the shortest name that tells the files apart; a missing loss is left out."""
    files = tuple({"path": path, **SHARE} for path in ("data/a/x.jsonl", "data/b/x.jsonl"))
    started = replace(STARTED, files=files, validation_files=("valid\x1b[2J.jsonl", "empty.jsonl"))
    first = replace(step(1), loss_by_file=(2.0, None), num_targets_by_file=(32, 0))
    second = replace(step(10), loss_by_file=(3.0, 1.0), num_targets_by_file=(96, 4))
    scores = replace(evaluation(10), loss_by_file=(1.5, None))
    assert [line for line in plain_lines(started, first, second, scores) if "by file" in line] == [
        "step 1/300  mean loss by file  a/x.jsonl 2.000",
        "step 10/300  mean loss by file  a/x.jsonl 2.750  b/x.jsonl 1.000",
        "eval step 10  loss by file  valid.jsonl 1.500",
    ]


def test_many_files_are_counted() -> None:
    names = [f"f{number}" for number in range(9)]
    files = tuple({"path": name, **SHARE} for name in names)
    one = replace(step(1), loss_by_file=(2.0,) * 9, num_targets_by_file=(1,) * 9)
    (line,) = [line for line in plain_lines(replace(STARTED, files=files), one) if "f0" in line][1:]
    assert line.endswith("f5 2.000  and 3 more")
