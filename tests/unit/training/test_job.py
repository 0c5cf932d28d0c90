"""What the job of a run adds to the events of the loop."""

from __future__ import annotations

from convo_cli.events import RunStarted, StepDone
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
        assert event.memory_bytes > 2**20
    # Operations go by tokens and targets (6 per weight), so equal counts of one step cannot be
    # those of two.
    costs = [event.flops / event.num_tokens for event in steps]
    assert 0 < max(costs) < 1.5 * min(costs)
