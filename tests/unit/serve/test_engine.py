"""The engine's thread: events of a job, cancelling, draining, and jobs that fail alone."""

from __future__ import annotations

import threading
import time

import pytest

from convo_cli.config.schema import GenerationSettings
from convo_cli.data.dialogue import Turn
from convo_cli.errors import ModelError, OutOfMemoryError
from convo_cli.model.decoding.generator import Generator
from convo_cli.serve.engine import Engine
from convo_cli.serve.jobs import BusyError, EngineFaultError, Failed, Finished, Job, Piece
from tests.random_models import FAMILIES, build

GREEDY = GenerationSettings(temperature=0.0, max_new_tokens=12)
TEXTS = ["Hi", "How are you?", "What a day it was, was it not?", "Tell me more about that."]


class Client:
    """Collects the events of one job."""

    def __init__(self, on_event=lambda event: None):
        self.events = []
        self.is_done = threading.Event()
        self._on_event = on_event

    def __call__(self, event):
        self.events.append(event)
        self._on_event(event)
        if not isinstance(event, Piece):
            self.is_done.set()

    @property
    def text(self):
        return "".join(event.text for event in self.events if isinstance(event, Piece))

    def wait(self):
        assert self.is_done.wait(60), "the job never ended"
        return self.events[-1]


@pytest.fixture(scope="module")
def generator(make_encoder):
    encoder = make_encoder(max_length=96)
    return Generator(build(*FAMILIES["GPT-2"], len(encoder.tokenizer)), encoder)


@pytest.fixture
def start(generator):
    engines = []

    def make(**options):
        engines.append(Engine(generator, **options))
        return engines[-1]

    yield make
    for engine in engines:
        engine.drain(0)


def job_of(generator, text, client, settings=GREEDY, **changes):
    query = generator.query([Turn("user", text)], settings)
    fields = {"seed": 1, "stop": (), "cache_key": None, **changes}
    return Job(query, settings, emit=client, **fields)


def submit(engine, generator, text, on_event=lambda event: None, **changes):
    client = Client(on_event)
    job = job_of(generator, text, client, **changes)
    engine.submit(job)
    return client, job


def test_pieces_join_to_the_reply_and_the_last_event_counts_its_tokens(generator, start):
    engine = start()
    clients = [submit(engine, generator, text)[0] for text in TEXTS]
    expected = generator.replies([[Turn("user", text)] for text in TEXTS], GREEDY)
    for client, reply in zip(clients, expected, strict=True):
        done = client.wait()
        assert done.reason == ("stop" if reply.stopped else "length")
        assert (done.num_reply_tokens, done.num_reused) == (len(reply.ids), 0)
        assert client.text == reply.text
    assert len({client.text for client in clients}) == len(TEXTS)
    assert (engine.num_running, engine.num_waiting, engine.num_faults) == (0, 0, 0)


def test_a_stop_string_ends_the_reply_and_is_not_shown(generator, start):
    (reply,) = generator.replies([[Turn("user", "Hi")]], GREEDY)
    middle = reply.text[3:6]
    client, _ = submit(start(), generator, "Hi", stop=(middle, "never"))
    done = client.wait()
    assert client.text == reply.text[: reply.text.find(middle)]
    assert done.reason == "stop"
    assert done.num_reply_tokens < len(reply.ids)


def test_a_cancelled_job_gets_no_more_events_and_frees_its_row(generator, start):
    engine = start(max_rows=1)
    gate, entered = threading.Event(), threading.Event()

    def hold(event):
        entered.set()
        gate.wait(60)
        time.sleep(0.05)  # after each event, `cancel` gets its turn also on a busy machine

    first, job = submit(engine, generator, "Hi", on_event=hold)
    second, _ = submit(engine, generator, "How are you?")
    assert entered.wait(60)
    assert (engine.num_running, engine.num_waiting) == (1, 1)
    threading.Timer(0.05, gate.set).start()
    engine.cancel(job)
    count = len(first.events)
    assert isinstance(second.wait(), Finished)
    assert len(first.events) == count
    assert not first.is_done.is_set()
    engine.cancel(job)  # twice, or after its end: nothing happens


def test_a_full_queue_and_a_draining_engine_refuse_jobs(generator, start):
    engine = start(max_rows=1, max_waiting=1)
    gate = threading.Event()
    first, _ = submit(engine, generator, "Hi", on_event=lambda event: gate.wait(60))
    second, _ = submit(engine, generator, "How are you?")
    with pytest.raises(BusyError, match="waiting"):
        submit(engine, generator, "One more")
    threading.Timer(0.05, gate.set).start()
    engine.drain(60)
    assert isinstance(first.wait(), Finished)
    assert isinstance(second.wait(), Finished)
    with pytest.raises(BusyError, match="stopping"):
        submit(engine, generator, "Hi")


def test_jobs_that_outlast_the_drain_fail(generator, start):
    engine = start(max_rows=1)
    slow = [submit(engine, generator, text, lambda event: time.sleep(0.02))[0] for text in TEXTS]
    engine.drain(0.05)
    ends = [client.wait() for client in slow]
    assert isinstance(ends[-1], Failed)
    assert isinstance(ends[-1].error, BusyError)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("shapes do not match"), ModelError),
        (MemoryError(), OutOfMemoryError),
        (RuntimeError("not enough memory: you tried to allocate memory"), OutOfMemoryError),
        (Exception("a fault of convo"), EngineFaultError),
    ],
)
def test_a_job_that_cannot_be_computed_fails_alone(generator, start, monkeypatch, error, expected):
    engine = start()
    healthy = [submit(engine, generator, text)[0] for text in TEXTS[:2]]
    for client in healthy:
        client.wait()
    passes = generator._forward[1].passes
    plain = passes.read_together
    bad = list(generator.query([Turn("user", "bad prompt")], GREEDY).ids)

    def spoiled(parts):
        if any(list(ids) == bad for _, ids in parts):
            raise error
        return plain(parts)

    monkeypatch.setattr(passes, "read_together", spoiled)
    clients = {text: submit(engine, generator, text)[0] for text in ["bad prompt", *TEXTS]}
    failed = clients.pop("bad prompt").wait()
    assert isinstance(failed.error, expected)
    for text, client in clients.items():
        done = client.wait()
        if expected is EngineFaultError and isinstance(done, Failed):
            continue
        (reply,) = generator.replies([[Turn("user", text)]], GREEDY)
        assert client.text == reply.text
    assert engine.num_faults == (expected is EngineFaultError)


def test_a_client_whose_function_fails_ends_alone(generator, start):
    faults = []
    engine = start(on_fault=faults.append)

    def fail(event):
        raise ValueError("a fault of the receiver")

    submit(engine, generator, "Hi", on_event=fail)
    client, _ = submit(engine, generator, "How are you?")
    assert isinstance(client.wait(), Finished)
    assert engine.num_faults == len(faults) > 0
