"""The log of a run: stable records, flushed lines, and a resume that drops later records."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convo_cli.errors import DiskError
from convo_cli.events import (
    CheckpointSaved,
    DeviceMeasured,
    EvaluationDone,
    Event,
    GpuUsage,
    Notice,
    Progress,
    RunFinished,
    RunStarted,
    SampleReply,
    StepDone,
    TokenCounts,
)
from convo_cli.runs.logs.event_log import MetricsLog, copy_log, read_metrics, truncate_after
from convo_cli.unseen import has_unseen
from tests.full_disk import file_size_limit

STARTED = RunStarted(
    run_dir=Path("/somewhere/runs/convo"),
    device="cpu",
    precision="fp32",
    num_threads=2,
    num_parameters=1000,
    template="turns",
    max_length=64,
    training=TokenCounts(20, 21, 1, 900, 850, {"assistant": 400, "user": 0}, 44.5, 80),
    validation=None,
    first_step=1,
    max_steps=10,
    steps_per_epoch=5,
)
SAMPLE = SampleReply(
    (("user", "안녕 \U0001f600"), ("assistant", "hi")), "good\n\u2028bye", "well \x1b[31m", False
)


CHECKSUM = "cb5fad8430edb8b9"
"""Of `evaluation(1)`: it does not depend on times."""


def step(number: int, loss: float = 2.5) -> StepDone:
    return StepDone(number, 10, loss, 3e-4, 1.25, 64, 32, 0.5, 64 * number, epoch=number / 5)


def evaluation(number: int) -> EvaluationDone:
    metrics = MappingProxyType({"bleu-2": 4.5})
    return EvaluationDone(
        number, 2.0, math.exp(2.0), 99, 1.5, metrics, (SAMPLE, SAMPLE), ("loss",), "0123abcd"
    )


def saved(number: int) -> CheckpointSaved:
    return CheckpointSaved(number, Path(f"/somewhere/runs/convo/checkpoints/step-{number:08d}"))


def events_of_steps(first: int, last: int) -> list[Event]:
    """A run that evaluates and saves after every second step."""
    events: list[Event] = []
    for number in range(first, last + 1):
        events.append(step(number, loss=10 / number))
        if number % 2 == 0:
            events += [saved(number), evaluation(number)]
    return events


def write(
    folder: Path, events: Sequence[Event], *, after_step: int = 0, is_evaluated: bool = True
) -> None:
    log = MetricsLog(
        folder / "metrics.jsonl",
        folder / "samples.jsonl",
        after_step=after_step,
        is_evaluated=is_evaluated,
    )
    for event in events:
        log(event)
    log.close()


def strict_records(path: Path) -> list[dict[str, Any]]:
    """Every line by a parser that refuses NaN and Infinity, without the time."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    lines = path.read_text("utf-8").split("\n")
    assert lines.pop() == ""
    records = [json.loads(line, parse_constant=refuse) for line in lines]
    for record in records:
        assert datetime.fromisoformat(record.pop("time")).utcoffset() == timedelta(0)
    return records


def test_a_measurement_is_a_record_with_null_for_what_is_not_available(tmp_path: Path) -> None:
    gpu = GpuUsage(used_bytes=2**33, utilization=0.0, power_watts=math.nan)
    on_a_gpu = DeviceMeasured(2, None, None, 1.0, gpu)
    events: list[Event] = [step(1), DeviceMeasured(1, 2**30, 2**31, None), on_a_gpu]
    write(tmp_path, events)
    on_cpu, on_gpu = strict_records(tmp_path / "metrics.jsonl")[1:]
    assert on_cpu == {
        "event": "device",
        "step": 1,
        "memory_bytes": 2**30,
        "peak_memory_bytes": 2**31,
        "cpu_utilization": None,
        "gpu": None,
    }
    available = {name: value for name, value in on_gpu["gpu"].items() if value is not None}
    assert available == {"used_bytes": 2**33, "utilization": 0.0}
    assert set(on_gpu["gpu"]) == {field.name for field in fields(GpuUsage)}


def test_every_kept_event_is_one_record_with_stable_names(tmp_path: Path) -> None:
    write(tmp_path, [STARTED, step(1), evaluation(1), saved(1), RunFinished(1, "all 1 step done")])
    assert strict_records(tmp_path / "metrics.jsonl") == [
        {
            "event": "run_started",
            "step": 0,
            "max_steps": 10,
            "steps_per_epoch": 5,
            "device": "cpu",
            "precision": "fp32",
            "num_processes": 1,
            "micro_batch_size": None,
            "num_threads": 2,
            "num_parameters": 1000,
            "peak_flops": None,
            "template": "turns",
            "max_length": 64,
            "files": [],
            "training": {
                "num_dialogues": 20,
                "num_examples": 21,
                "num_over_length": 1,
                "num_tokens": 900,
                "num_dialogue_tokens": 850,
                "num_targets_by_role": {"assistant": 400, "user": 0},
                "median_tokens": 44.5,
                "max_tokens": 80,
                "num_split": 0,
                "num_left_out": 0,
                "num_held_back": 0,
            },
            "validation": None,
            "test": None,
        },
        {
            "event": "step",
            "step": 1,
            "epoch": 0.2,
            "loss": 2.5,
            "learning_rate": 3e-4,
            "grad_norm": 1.25,
            "num_tokens": 64,
            "num_targets": 32,
            "tokens_seen": 64,
            "seconds": 0.5,
            "waiting_seconds": 0.0,
            "flops": 0.0,
            "loss_by_file": [],
            "num_targets_by_file": [],
        },
        {
            "event": "evaluation",
            "step": 1,
            "loss": 2.0,
            "perplexity": math.exp(2.0),
            "num_targets": 99,
            "metrics": {"bleu-2": 4.5},
            "real_scores": {},
            "intervals": {},
            "floors": {},
            "end_nll": None,
            "inner_nll": None,
            "loss_by_file": [],
            "findings": [],
            "best": ["loss"],
            "weights": "0123abcd",
            "seconds": 1.5,
            "checksum": CHECKSUM,
        },
        {"event": "checkpoint", "step": 1, "name": "step-00000001"},
        {"event": "run_finished", "step": 1, "reason": "all 1 step done"},
    ]


def test_a_record_begins_with_its_event_and_its_time(tmp_path: Path) -> None:
    write(tmp_path, [step(3)])
    assert list(next(read_metrics(tmp_path / "metrics.jsonl")))[:3] == ["event", "time", "step"]


def test_sample_replies_have_a_log_of_their_own(tmp_path: Path) -> None:
    write(tmp_path, [evaluation(2)])
    assert strict_records(tmp_path / "samples.jsonl") == [
        {
            "event": "sample",
            "step": 2,
            "index": index,
            "history": [
                {"role": "user", "content": "안녕 \U0001f600"},
                {"role": "assistant", "content": "hi"},
            ],
            "reference": "good\n\u2028bye",
            "other_references": [],
            "reply": "well \x1b[31m",
            "stopped": False,
        }
        for index in range(2)
    ]
    assert "안녕 \U0001f600" in (tmp_path / "samples.jsonl").read_text("utf-8")


def test_invisible_characters_are_logged_as_escapes_of_the_same_value(tmp_path: Path) -> None:
    text = "a\x9b\u202e\u200b\u00ad\U000e0041\u2028\ufeff\x7fb é 👩\u200d👧"
    sample = SampleReply((("user", text),), text, text, False)
    write(tmp_path, [replace(evaluation(1), samples=(sample,)), Notice(text, is_warning=True)])
    for name in ("metrics.jsonl", "samples.jsonl"):
        raw = (tmp_path / name).read_text(encoding="utf-8")
        assert not has_unseen(raw)
        assert "é 👩\u200d👧" in raw
    (record,) = strict_records(tmp_path / "samples.jsonl")
    assert (record["reply"], record["reference"]) == (text, text)
    assert strict_records(tmp_path / "metrics.jsonl")[-1]["message"] == text


def test_warnings_are_logged_with_the_step_before_them_and_other_notices_are_not(
    tmp_path: Path,
) -> None:
    write(
        tmp_path,
        [
            step(4),
            Notice("chatter"),
            Progress("reading", 1),
            Notice("caf\udce9: beware", is_warning=True),
        ],
    )
    records = strict_records(tmp_path / "metrics.jsonl")
    assert records[1:] == [{"event": "warning", "step": 4, "message": "caf?: beware"}]


def test_a_number_that_json_cannot_hold_is_null(tmp_path: Path) -> None:
    scores = EvaluationDone(1, math.inf, math.nan, 9, 1.0, {"nist-4": -math.inf, "bleu-2": 1.0})
    write(tmp_path, [step(1, loss=math.nan), scores])
    first, second = strict_records(tmp_path / "metrics.jsonl")
    assert (first["loss"], second["loss"], second["perplexity"]) == (None, None, None)
    assert second["metrics"] == {"nist-4": None, "bleu-2": 1.0}


def test_a_line_can_be_read_before_the_next_event(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl", tmp_path / "samples.jsonl")
    for number in range(1, 4):
        log(step(number))
        assert [record["step"] for record in read_metrics(tmp_path / "metrics.jsonl")] == list(
            range(1, number + 1)
        )
    log.close()


@settings(deadline=None)
@given(
    killed_after=st.integers(0, 10),
    checkpoint=st.integers(0, 5),
    torn=st.binary(max_size=40),
    is_evaluated=st.booleans(),
)
def test_a_resumed_log_equals_the_log_of_the_run_that_was_never_stopped(
    killed_after: int, checkpoint: int, torn: bytes, is_evaluated: bool
) -> None:
    resumed_from = min(2 * checkpoint, killed_after // 2 * 2)
    with TemporaryDirectory() as folder:
        whole, resumed = Path(folder, "whole"), Path(folder, "resumed")
        whole.mkdir()
        resumed.mkdir()
        write(whole, events_of_steps(1, 10))
        write(resumed, events_of_steps(1, killed_after))
        for name in ("metrics.jsonl", "samples.jsonl"):
            with (resumed / name).open("ab") as file:
                file.write(torn.replace(b"\n", b""))
        again = [] if is_evaluated or resumed_from == 0 else [evaluation(resumed_from)]
        events = [*again, *events_of_steps(resumed_from + 1, 10)]
        write(resumed, events, after_step=resumed_from, is_evaluated=is_evaluated)
        for name in ("metrics.jsonl", "samples.jsonl"):
            assert strict_records(resumed / name) == strict_records(whole / name)


def test_records_of_the_resumed_step_are_kept(tmp_path: Path) -> None:
    write(tmp_path, [STARTED, *events_of_steps(1, 6)])
    truncate_after(tmp_path / "metrics.jsonl", 4)
    kept = [
        (record["event"], record["step"]) for record in read_metrics(tmp_path / "metrics.jsonl")
    ]
    assert kept[0] == ("run_started", 0)
    assert kept[-3:] == [("step", 4), ("checkpoint", 4), ("evaluation", 4)]


def test_a_repeated_evaluation_replaces_the_record_and_the_samples(
    tmp_path: Path,
) -> None:
    write(tmp_path, [STARTED, *events_of_steps(1, 6)])
    for name in ("metrics.jsonl", "samples.jsonl"):
        truncate_after(tmp_path / name, 4, is_evaluated=False)
    kept = [
        (record["event"], record["step"]) for record in read_metrics(tmp_path / "metrics.jsonl")
    ]
    assert kept[-2:] == [("step", 4), ("checkpoint", 4)]
    assert {record["step"] for record in read_metrics(tmp_path / "samples.jsonl")} == {2}


def test_a_copied_log_ends_at_the_step_of_the_fork(tmp_path: Path) -> None:
    write(tmp_path, [STARTED, *events_of_steps(1, 6)])
    before = (tmp_path / "metrics.jsonl").read_bytes()
    copy_log(tmp_path / "metrics.jsonl", tmp_path / "copy", after_step=4, is_evaluated=True)
    copy_log(tmp_path / "nowhere", tmp_path / "nothing", after_step=4, is_evaluated=True)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    assert before.startswith((tmp_path / "copy").read_bytes())
    assert [record["step"] for record in read_metrics(tmp_path / "copy")][-1] == 4
    assert not (tmp_path / "nothing").exists()


def test_samples_reach_the_disk_before_their_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []

    def fsync(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        evaluations = [
            one for one in read_metrics(tmp_path / "metrics.jsonl") if one["event"] == "evaluation"
        ]
        samples = list(read_metrics(tmp_path / "samples.jsonl"))
        assert (len(evaluations), len(samples)) == (synced[-1] == "metrics.jsonl", 2)

    log = MetricsLog(tmp_path / "metrics.jsonl", tmp_path / "samples.jsonl")
    monkeypatch.setattr(os, "fsync", fsync)
    log(evaluation(2))
    assert synced == ["samples.jsonl", "metrics.jsonl"]
    log.close()


def test_a_warning_before_the_first_step_belongs_to_the_resumed_step(tmp_path: Path) -> None:
    write(tmp_path, [Notice("beware", is_warning=True)], after_step=7)
    assert strict_records(tmp_path / "metrics.jsonl") == [
        {"event": "warning", "step": 7, "message": "beware"}
    ]


def test_a_missing_log_needs_no_cut(tmp_path: Path) -> None:
    truncate_after(tmp_path / "metrics.jsonl", 3)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_damaged_line_is_skipped_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(
        b'{"step": 1}\n\x00\x00\xff{"step": 9}\n[2]\n{"step": 2}\n{"step": 5}\n{"step": 6'
    )
    truncate_after(path, 4)
    assert path.read_bytes() == b'{"step": 1}\n\x00\x00\xff{"step": 9}\n[2]\n{"step": 2}\n'
    assert list(read_metrics(path)) == [{"step": 1}, {"step": 2}]


LINES = st.sampled_from(
    [b'{"step": 3}', b'{"step": 4}', b'{"step": "x"}', b"[1]", b"", b"null"]
) | st.binary(max_size=9)


@given(content=st.lists(LINES, max_size=12).map(b"\n".join))
def test_any_bytes_are_cut_to_whole_lines_without_a_later_step(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "metrics.jsonl")
        path.write_bytes(content)
        truncate_after(path, 3)
        kept, cut = path.read_bytes(), content[path.stat().st_size :]
        assert content == kept + cut
        assert kept == b"" or kept.endswith(b"\n")
        assert b'{"step": 4}\n' not in kept.splitlines(keepends=True)
        assert b"\n" not in cut or cut.startswith(b'{"step": 4}\n')
        assert [record["step"] for record in read_metrics(path) if record["step"] != "x"] == [
            3
        ] * kept.count(b"3}\n")


def test_a_line_nested_too_deeply_is_a_damaged_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"x":' * 100_000 + b'\n{"step": 1}\n')
    truncate_after(path, 1)
    assert list(read_metrics(path)) == [{"step": 1}]


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl", tmp_path / "samples.jsonl")
    log(step(1))
    size = (tmp_path / "metrics.jsonl").stat().st_size
    with file_size_limit(size + 10):
        with pytest.raises(DiskError, match=r"metrics\.jsonl"):
            log(step(2))
        with pytest.raises(DiskError, match=r"metrics\.jsonl"):
            log.close()
    assert [record["step"] for record in read_metrics(tmp_path / "metrics.jsonl")] == [1]


def test_a_log_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=r"nowhere.metrics\.jsonl"):
        MetricsLog(tmp_path / "nowhere" / "metrics.jsonl", tmp_path / "samples.jsonl")


def test_a_log_with_a_second_hard_link_is_neither_written_nor_copied(
    tmp_path: Path,
) -> None:
    (tmp_path / "precious").write_text("mine\n")
    os.link(tmp_path / "precious", tmp_path / "metrics.jsonl")
    with pytest.raises(DiskError, match="has several names"):
        MetricsLog(tmp_path / "metrics.jsonl", tmp_path / "samples.jsonl")
    with pytest.raises(DiskError, match="has several names"):
        copy_log(tmp_path / "metrics.jsonl", tmp_path / "copy", after_step=4, is_evaluated=True)
    assert (tmp_path / "precious").read_text() == "mine\n"
    assert not (tmp_path / "copy").exists()


def test_a_line_over_the_limit_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "metrics.jsonl").open("wb") as file:
        file.truncate(2**42)
    for read in (truncate_after, lambda path, step: list(read_metrics(path))):
        with pytest.raises(DiskError, match="a line of more than"):
            read(tmp_path / "metrics.jsonl", 3)
