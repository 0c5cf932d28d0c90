"""The log of a run as numbers: whatever is in the file, reading it gives what is sound in it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convo_cli.report.reading.recent_losses import recent_losses
from convo_cli.report.reading.run_log import read_log
from convo_cli.runs.logs.event_log import MetricsLog
from tests.run_events import STARTED, step
from tests.written_runs import healthy, write_run

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=3,
)
EVENTS = st.sampled_from(["step", "evaluation", "run_started", "run_finished", "warning", "x"])
FIELDS = ("loss", "metrics", "intervals", "floors", "findings", "end_nll", "num_tokens", "message")
BY_FILE = ("loss_by_file", "num_targets_by_file")
RECORDS = st.fixed_dictionaries(
    {"event": EVENTS | JSON, "step": st.integers(-5, 50) | JSON},
    optional={
        **dict.fromkeys(FIELDS, JSON),
        **dict.fromkeys(BY_FILE, JSON | st.lists(JSON | st.floats(), max_size=3)),
    },
)


def write(path: Path, *records: object, end: str = "\n") -> Path:
    path.write_text("\n".join(map(json.dumps, records)) + end, encoding="utf-8")
    return path


@given(st.lists(RECORDS, max_size=6))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_any_records_can_be_read(tmp_path_factory, records):
    log = read_log(write(tmp_path_factory.mktemp("log") / "metrics.jsonl", *records))
    assert list(log.steps) == sorted(set(log.steps))
    assert all(len(values) == len(log.steps) for values in log.numbers.values())
    assert [record["step"] for record in log.last_steps] == list(log.steps)
    for loss in recent_losses(log.last_steps):
        assert loss is None or math.isfinite(loss)
    assert list(log.evaluations) == sorted(log.evaluations)


def test_a_whole_run(tmp_path):
    log = read_log(write_run(tmp_path / "run", healthy(300)).metrics)
    assert (log.last_step, len(log.curve("loss")), log.num_damaged) == (300, 300, 0)
    assert list(log.evaluations) == [50, 100, 150, 200, 250, 300]
    assert (log.tokens_seen, log.seconds) == (180_000, 150.0)
    assert log.finished["reason"] == "all 300 steps done"
    assert log.scores("bleu-4")[0] == (50, 1.5 + 1 / 6)
    assert dict(log.speed())[7] == 1200


def test_a_torn_last_line_is_not_damage(tmp_path):
    run = write_run(tmp_path / "run", healthy(100))
    whole = run.metrics.read_bytes()
    run.metrics.write_bytes(whole[:-30])
    log = read_log(run.metrics)
    assert (log.last_step, log.num_damaged, log.finished) == (100, 0, None)


def test_damaged_lines_are_counted_and_left_out(tmp_path):
    run = write_run(tmp_path / "run", healthy(100))
    lines = run.metrics.read_bytes().splitlines()
    lines[5], lines[9] = b"\x00\xff", b"[1, 2]"
    run.metrics.write_bytes(b"\n".join(lines) + b"\n")
    log = read_log(run.metrics)
    assert (log.num_damaged, log.damaged, len(log.steps)) == (2, [6, 10], 98)


def test_an_earlier_version_wrote_no_intervals_floors_and_findings(tmp_path):
    old = {"event": "evaluation", "step": 3, "loss": 2.5, "metrics": {"bleu-4": 1.0, "x": None}}
    log = read_log(write(tmp_path / "metrics.jsonl", old))
    evaluation = log.evaluations[3]
    assert (evaluation.metrics, evaluation.intervals, evaluation.floors) == (
        {"bleu-4": 1.0},
        {},
        {},
    )
    assert (evaluation.end_nll, evaluation.findings, evaluation.has_health) == (None, (), False)


def test_what_convo_writes_now_is_read_if_it_is_there(tmp_path):
    record = {
        "event": "evaluation", "step": 3, "loss": 2.5, "metrics": {"bleu-4": 1.0},
        "intervals": {"bleu-4": [0.5, 1.5], "bad": [1], "nan": [None, 1]},
        "floors": {"echo": {"bleu-4": 2.0}, "../x": {"bleu-4": 1}},
        "end_nll": 0.25, "inner_nll": 3.0, "findings": [{"kind": "echo", "message": "parrots"}, 7],
    }  # fmt: skip
    evaluation = read_log(write(tmp_path / "metrics.jsonl", record)).evaluations[3]
    assert evaluation.intervals == {"bleu-4": (0.5, 1.5)}
    assert evaluation.floors == {"echo": {"bleu-4": 2.0}}
    assert (evaluation.end_nll, evaluation.inner_nll) == (0.25, 3.0)
    assert (evaluation.findings, evaluation.has_health) == ((("echo", "parrots"),), True)


def test_numbers_that_are_null_leave_a_gap(tmp_path):
    records = [{"event": "step", "step": at, "loss": loss} for at, loss in ((1, 2.0), (2, None))]
    log = read_log(write(tmp_path / "metrics.jsonl", *records))
    assert (log.curve("loss"), log.last_step) == ([(1, 2.0)], 2)


def test_steps_that_are_taken_again_replace_the_first_ones(tmp_path):
    """A log from two processes, or a copied one."""
    steps = [{"event": "step", "step": at, "loss": float(turn)} for turn in (1, 2) for at in (1, 2)]
    log = read_log(write(tmp_path / "metrics.jsonl", *steps))
    assert log.curve("loss") == [(1, 2.0), (2, 2.0)]


def test_a_resumed_run_has_its_starts_and_no_early_end(tmp_path):
    run = write_run(tmp_path / "run", healthy(100))
    log = MetricsLog(run.metrics, run.samples, after_step=100)
    log(replace(STARTED, first_step=101, max_steps=200))
    log(step(101))
    log.close()
    found = read_log(run.metrics)
    assert [start["step"] for start in found.starts] == [0, 100]
    assert (found.last_step, found.finished) == (101, None)


def test_the_log_up_to_a_step(tmp_path):
    part = read_log(write_run(tmp_path / "run", healthy(300)).metrics).up_to(120)
    assert (part.last_step, list(part.evaluations), part.tokens_seen) == (120, [50, 100], 72_000)


def test_findings_do_not_exceed_a_bound(tmp_path):
    record = {"event": "evaluation", "step": 50, "findings": [{"kind": "k"}] * 1000}
    log = read_log(write(tmp_path / "metrics.jsonl", record))
    assert len(log.evaluations[50].findings) == 40


def test_a_missing_log_is_empty(tmp_path):
    assert read_log(tmp_path / "metrics.jsonl").last_step == 0


def test_the_loss_of_a_file_is_the_mean_over_its_targets(tmp_path):
    """Of steps that were taken again, the last records count."""
    one, two = {"event": "step", "step": 1}, {"event": "step", "step": 2}
    log = read_log(
        write(
            tmp_path / "metrics.jsonl",
            {**one, "loss_by_file": [2.0, None, None], "num_targets_by_file": [3, 0, 0]},
            {**two, "loss_by_file": [9.0, 9.0, 9.0], "num_targets_by_file": [9, 9, 9]},
            {**two, "loss_by_file": [4.0, 1e308, None], "num_targets_by_file": [1, 1e308, 0]},
        )
    )
    assert recent_losses(log.last_steps) == [2.5, None, None]
    assert recent_losses([one, {**two, "loss_by_file": [], "num_targets_by_file": []}]) == []
