"""A server with too much to do: bodies that wait, long texts and replies, a log without reader."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time

import pytest
from starlette.testclient import TestClient

from convo_cli.serve.completions import _MAX_READING
from convo_cli.serve.jobs import Finished, Piece
from convo_cli.serve.running import Server
from convo_cli.serve.served_models import ServedModel
from convo_cli.serve.wire.connections import accept_limit, connection_limit
from convo_cli.serve.wire.exchange import MAX_REPLY_CHARACTERS, EventQueue
from convo_cli.serve.wire.log_writer import LogWriter
from convo_cli.serve.wire.objects import ApiError
from convo_cli.serve.wire.sockets import addresses_of, listen
from tests.served import HELLO, LOCAL, PATH, ScriptedEngine, make_api

SCOPE = {
    "type": "http", "method": "POST", "path": PATH, "raw_path": PATH.encode(),
    "query_string": b"", "root_path": "", "server": ("127.0.0.1", 8000),
    "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")],
}  # fmt: skip


def test_a_reply_that_becomes_too_long_while_the_answer_waits_for_it_is_an_error():
    """The part before the limit must not be returned as if it were the whole reply."""

    async def run():
        events = EventQueue()
        waiting = asyncio.ensure_future(events.next())
        await asyncio.sleep(0)
        events.emit(Piece("x" * (MAX_REPLY_CHARACTERS + 1)))
        events.emit(Finished("stop", 1, 0))
        await asyncio.wait_for(waiting, 20)

    with pytest.raises(ApiError, match="longer than") as caught:
        asyncio.run(run())
    assert caught.value.code == "reply_too_long"


def test_bodies_of_clients_that_left_count_as_long_as_they_are_in_memory(make_encoder, monkeypatch):
    may_read, asked = threading.Event(), []

    def query(self, turns, settings):
        asked.append(turns)
        assert may_read.wait(20)
        raise AssertionError("no client waits for this prompt")

    monkeypatch.setattr(ServedModel, "query", query)
    api = make_api(make_encoder())
    statuses = []

    async def send_and_leave():
        parts = iter([{"type": "http.request", "body": json.dumps(HELLO).encode()}])

        async def receive():
            if (part := next(parts, None)) is None:
                await asyncio.sleep(0.05)
                return {"type": "http.disconnect"}
            return part

        async def send(message):
            statuses.append(message.get("status"))

        await api(dict(SCOPE), receive, send)

    async def run():
        await asyncio.gather(*(send_and_leave() for _ in range(_MAX_READING)))
        assert statuses == []  # all of them left
        await send_and_leave()
        may_read.set()
        deadline = time.monotonic() + 20
        while api.completions._num_reading and time.monotonic() < deadline:
            await asyncio.sleep(0.01)

    asyncio.run(run())
    assert statuses[0] == 429
    assert api.completions._num_reading == 0
    assert 1 <= len(asked) <= 2  # those that waited for a thread were never decoded


def test_a_message_that_no_window_can_hold_is_refused_before_it_is_encoded(make_encoder):
    encoder = make_encoder(max_length=128)
    client = TestClient(make_api(encoder), base_url=LOCAL)
    for number, unit in ((16_384, "tokens"), (16_385, "characters")):
        message = {"role": "user", "content": "a" * number}
        error = client.post(PATH, json={"messages": [message]}).json()["error"]
        assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")
        assert unit in error["message"].partition(", but")[0]


@pytest.mark.parametrize("number", [64, 100, 256, 300, 1024, 2**20])
def test_connections_that_are_accepted_at_once_leave_files_for_the_server(number):
    num_own = 24  # files that the server has open without connections
    assert connection_limit(number) + accept_limit(number) + num_own <= number


def test_a_log_that_nothing_reads_loses_lines_but_stops_no_thread():
    reading, writing = os.pipe()
    log = LogWriter(writing, max_lines=10)
    for _ in range(1000):  # 100 kB, more than a pipe holds
        log.write_line("x" * 100)
    assert not log.close(0.1)
    text = b""
    while b"lines of this log were lost" not in text:
        log.write_line("later")
        text += os.read(reading, 2**16)
    log.write_line("last")
    while not log.close(0.1):
        os.read(reading, 2**16)
    os.close(reading)
    os.close(writing)


def test_a_log_writes_all_its_lines_before_it_is_closed(tmp_path):
    with (tmp_path / "log").open("wb") as file:
        log = LogWriter(file.fileno())
        for number in range(500):
            log.write_line(f"é{number}")
        assert log.close()
    lines = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert lines == [f"é{number}" for number in range(500)]


def test_a_log_on_a_closed_pipe_is_ignored():
    reading, writing = os.pipe()
    os.close(reading)
    log = LogWriter(writing)
    log.write_line("x")
    assert log.close()
    os.close(writing)


def test_all_models_have_the_same_time_to_finish_and_a_stop_needs_no_new_thread(
    make_encoder, monkeypatch
):
    class Slow(ScriptedEngine):
        def drain(self, seconds):
            given.append(seconds)
            time.sleep(0.1)

    given = list[float]()
    listening = listen("127.0.0.1", addresses_of("127.0.0.1"), 0)
    engines = [Slow(), Slow(), Slow()]
    server = Server(make_api(make_encoder(), *engines), engines, listening, drain_seconds=0.15)
    server.start()

    def fail(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    server.stop()
    assert given[0] == pytest.approx(0.15, abs=0.02)
    assert given[1] < 0.06
    assert given[2] == 0.0
