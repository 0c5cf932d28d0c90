"""What the job of a run adds to the events of the loop."""

from __future__ import annotations

import psutil

from convo_cli.events import DeviceMeasured, RunStarted, StepDone
from convo_cli.model import usage
from convo_cli.runs.directory import RunDirectory
from convo_cli.storage.sealed import file_sha256
from convo_cli.training.run import start_run


def test_a_step_is_emitted_with_its_epoch_and_what_it_cost(tiny_config):
    events = []
    start_run(tiny_config(training={"max_steps": 3}, data={"validation": []}), events.append)
    num_examples = next(
        event.training.num_examples for event in events if isinstance(event, RunStarted)
    )
    steps = [event for event in events if isinstance(event, StepDone)]
    assert [event.epoch for event in steps] == [4 * step / num_examples for step in (1, 2, 3)]
    for event in steps:
        assert 0 < event.waiting_seconds < event.seconds
    # Operations go by tokens and targets (6 per weight), so equal counts of one step cannot be
    # those of two.
    costs = [event.flops / event.num_tokens for event in steps]
    assert 0 < max(costs) < 1.5 * min(costs)


def test_measurements_change_no_weight_and_stop_no_run(tiny_config, monkeypatch):
    def run(name):
        events = []
        config = tiny_config(name=name, training={"max_steps": 3}, data={"validation": []})
        checkpoint = RunDirectory(start_run(config, events.append).run_dir).checkpoint(3)
        measured = [event for event in events if isinstance(event, DeviceMeasured)]
        return file_sha256(checkpoint / "model.safetensors"), measured

    weights, measured = run("plain")
    assert [event.step for event in measured] == [1, 3]
    assert all(2**20 < event.memory_bytes <= event.peak_memory_bytes for event in measured)
    monkeypatch.setattr(usage, "_SECONDS", 0.0)
    monkeypatch.setattr(usage, "_PAUSE", 0.0)
    same, measured = run("every-step")
    assert (same, len(measured)) == (weights, 3)
    for name in ("Process", "cpu_percent"):
        monkeypatch.setattr(psutil, name, None)
    same, measured = run("failing")
    assert same == weights
    assert measured == [DeviceMeasured(step, None, None, None) for step in (1, 2, 3)]
