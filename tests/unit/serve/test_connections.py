"""A running server under attack by sockets: slow, endless, idle, unread and malformed requests."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time

import httpx
import psutil
import pytest

from convo_cli.serve.jobs import Finished, Piece
from convo_cli.serve.wire.bodies import MAX_BODY_BYTES
from convo_cli.serve.wire.connections import connection_limit
from tests.served import (
    HELLO,
    OPENED,
    PATH,
    ScriptedEngine,
    connect,
    make_api,
    post,
    received,
    running,
)

BODY = json.dumps(HELLO).encode()
STREAM = json.dumps({**HELLO, "stream": True}).encode()
HEAD = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def encoder(make_encoder):
    return make_encoder()


@pytest.fixture(autouse=True)
def closed():
    yield
    while OPENED:
        OPENED.pop().close()


@pytest.fixture(scope="module")
def port(encoder):
    with running(make_api(encoder), seconds_to_send=1.0) as port:
        yield port


def health(port):
    return httpx.get(f"http://127.0.0.1:{port}/health", timeout=20).json()


def error_in(answer):
    head, _, body = answer.partition(b"\r\n\r\n")
    lower = head.lower()
    assert b"content-type: application/json" in lower
    assert b"x-content-type-options: nosniff" in lower
    assert b"server:" not in lower
    return int(head.split()[1]), json.loads(body)["error"]["code"]


def read_until(opened, end):
    answer = b""
    while end not in answer:
        part = opened.recv(2**16)
        assert part, answer
        answer += part
    return answer


def test_an_endless_body_in_chunks_gets_413_after_the_limit(port):
    opened = connect(port, f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode())
    chunk = b"10000\r\n" + b" " * 2**16 + b"\r\n"
    rest, answer = chunk, b""
    opened.setblocking(False)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and b"}}" not in answer:
        with contextlib.suppress(BlockingIOError):
            rest = rest[opened.send(rest) :] or chunk
        with contextlib.suppress(BlockingIOError):
            answer += opened.recv(2**16)
    assert error_in(answer) == (413, "request_too_large")
    assert b"connection: close" in answer.lower()
    opened.setblocking(True)
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        opened.sendall(rest + chunk * 1000)
    assert health(port) == {"status": "ok"}


def test_no_other_address_of_the_machine_reaches_a_server_on_loopback(port):
    others = {"127.0.0.2"} if sys.platform == "linux" else set()
    for addresses in psutil.net_if_addrs().values():
        others |= {one.address for one in addresses if one.family == socket.AF_INET}
    for address in others - {"127.0.0.1"}:
        with pytest.raises(OSError, match=r"refused|unreachable|timed out"):
            socket.create_connection((address, port), timeout=5)


def test_a_body_over_the_limit_gets_its_answer_although_it_is_unread(port):
    body = b" " * (MAX_BODY_BYTES + 1)
    for _ in range(5):
        opened = connect(port, post(body))
        assert error_in(received(opened)) == (413, "request_too_large")


def test_a_wrong_content_length_is_refused_or_times_out(port):
    short = connect(port, post(b"{}", path=PATH).replace(b"Length: 2", b"Length: 99"))
    assert error_in(received(short)) == (408, "request_timeout")
    long = post(BODY, "Connection: close").replace(str(len(BODY)).encode(), b"5", 1)
    assert b" 400 " in received(connect(port, long)).split(b"\r\n")[0]
    for length in ("-1", "1e3", "99999999999999999999999", "5, 6", ""):
        request = f"{HEAD}Content-Length: {length}\r\n\r\n{{}}".encode()
        status, _ = error_in(received(connect(port, request)))
        assert status in (400, 413), length


@pytest.mark.parametrize(
    "beginning", ["", "GET /he", f"{HEAD}X-A: b\r\n", f"{HEAD}Content-Length: 50\r\n\r\n{{"]
)
def test_a_request_that_arrives_byte_by_byte_is_refused_in_time(port, beginning):
    opened = connect(port, beginning.encode())
    start = time.monotonic()
    opened.settimeout(0.1)
    answer = b""
    while time.monotonic() - start < 10:
        try:
            part = opened.recv(2**16)
        except TimeoutError:
            part = None
        except ConnectionResetError:  # a byte was sent after the answer, which may be lost then
            break
        if part == b"":
            break
        answer += part or b""
        with contextlib.suppress(OSError):
            opened.sendall(b"a")
    assert 0.5 < time.monotonic() - start < 8
    assert not answer or error_in(answer) == (408, "request_timeout")


def test_a_second_request_on_a_connection_has_its_own_time(encoder):
    with running(make_api(encoder), seconds_to_send=0.6) as port:
        opened = connect(port)
        for _ in range(4):  # in all longer than the limit
            opened.sendall(post(BODY))
            assert b" 200 " in read_until(opened, b'{"dropped_turns":0}}')
            time.sleep(0.25)
        opened.sendall(b"GET / HTTP/1.1\r\n")
        assert error_in(received(opened)) == (408, "request_timeout")


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"\x00" * 100,
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nA\r\n\r\n",
        b"GET /\x01 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nA: " + b"x" * 2**17,
        HEAD.encode() + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        HEAD.encode() + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ],
    ids=lambda data: ascii(data[:40]),
)  # fmt: skip
def test_what_is_not_http_gets_an_object_and_the_connection_closes(port, data):
    status, code = error_in(received(connect(port, data)))
    assert (status, code) in {(400, "invalid_http"), (501, "invalid_http")}
    assert health(port) == {"status": "ok"}


@pytest.mark.parametrize(
    "request_line",
    ["GET //evil.example/ HTTP/1.1", "GET http://evil.example/ HTTP/1.1", "OPTIONS * HTTP/1.1",
     "CONNECT evil.example:443 HTTP/1.1", "GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1",
     "GET /../../etc/passwd HTTP/1.1", "GET /..%5c..%5cetc HTTP/1.1"],
)  # fmt: skip
def test_strange_targets_reach_nothing(port, request_line):
    request = f"{request_line}\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    answer = received(connect(port, request.encode()))
    assert answer.split()[1] in (b"404", b"405"), answer
    assert b"location:" not in answer.lower()


def test_a_websocket_request_is_not_upgraded(port):
    headers = "Host: 127.0.0.1\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n"
    key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    answer = received(connect(port, f"GET /v1/models HTTP/1.1\r\n{headers}{key}\r\n".encode()))
    assert b" 101 " not in answer


def test_idle_connections_are_bounded_and_the_server_stays_responsive(encoder):
    num_before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    with running(make_api(encoder), max_connections=20) as port:
        idle = [connect(port) for _ in range(120)]
        for _ in range(3):
            assert health(port) == {"status": "ok"}
        is_open = [_is_open(one) for one in idle]
        assert sum(is_open) <= 20
        assert is_open[-1]  # the oldest are closed first
        if num_before is not None:
            # both ends of 20 connections, the sockets of the closed ones here, and the server's
            assert len(os.listdir("/proc/self/fd")) < num_before + 120 + 20 + 20
        for one in idle:
            one.close()


def _is_open(opened):
    opened.setblocking(False)
    try:
        return opened.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def test_a_connection_with_an_answer_in_progress_is_not_closed_for_idle_ones(encoder):
    engine = ScriptedEngine(is_holding=True)
    with running(make_api(encoder, engine), max_connections=5) as port:
        asking = connect(port, post(BODY, "Connection: close"))
        engine.wait(lambda: bool(engine.jobs))
        idle = [connect(port) for _ in range(30)]
        assert health(port) == {"status": "ok"}
        engine.answer(engine.jobs[0])
        assert b"Hi" in received(asking)
        for one in idle:
            one.close()


def test_streams_that_are_never_read_take_bounded_memory_and_end(encoder):
    """The engine offers far more text than the sockets take; the server keeps at most a reply."""
    engine = ScriptedEngine(*["x" * 2**15] * 30, Finished("length", 1, 0), room=8)
    with running(make_api(encoder, engine), seconds_to_read=0.5) as port:
        clients = []
        for _ in range(8):
            opened = socket.socket()
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            opened.connect(("127.0.0.1", port))
            opened.sendall(post(STREAM))
            clients.append(opened)
        engine.wait(lambda: len(engine.cancelled) == 8)
        assert health(port) == {"status": "ok"}
        for one in clients:
            one.close()


def test_more_requests_than_the_queue_takes_get_429_and_none_is_lost(encoder):
    engine = ScriptedEngine(is_holding=True, room=5)
    with running(make_api(encoder, engine)) as port:
        clients = [connect(port, post(BODY, "Connection: close")) for _ in range(20)]
        engine.wait(lambda: len(engine.jobs) == 5)
        time.sleep(0.3)
        for job in list(engine.jobs):
            engine.answer(job)
        statuses = sorted(received(one).split()[1] for one in clients)
        assert statuses == [b"200"] * 5 + [b"429"] * 15


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_client_that_disconnects_frees_its_row(encoder, is_stream):
    engine = ScriptedEngine(is_holding=True)
    with running(make_api(encoder, engine)) as port:
        opened = connect(port, post(STREAM if is_stream else BODY))
        engine.wait(lambda: bool(engine.jobs))
        if is_stream:
            engine.jobs[0].emit(Piece("Good "))
            read_until(opened, b"Good")
        opened.close()
        engine.wait(lambda: engine.cancelled == engine.jobs)


def test_a_stop_finishes_running_requests_and_refuses_new_ones(encoder):
    class Slow(ScriptedEngine):
        """Finishes its jobs only when the test lets it, as a long reply would."""

        may_finish = threading.Event()

        def drain(self, seconds):
            assert self.may_finish.wait(20)
            super().drain(seconds)

    engine = Slow("Good ", "morning", is_holding=True)
    api = make_api(encoder, engine)
    answers = []
    with running(api, engine) as port:
        asking = connect(port, post(BODY, "Connection: close"))
        engine.wait(lambda: bool(engine.jobs))

        def late():
            while not api.completions.is_draining:
                time.sleep(0.01)
            answers.append(received(connect(port, post(BODY, "Connection: close"))))
            engine.may_finish.set()

        thread = threading.Thread(target=late)
        thread.start()
    thread.join()
    assert error_in(answers[0]) == (503, "stopping")
    assert b"retry-after: 30" in answers[0].lower()
    assert b"Good morning" in received(asking)
    with pytest.raises(ConnectionRefusedError):
        connect(port)


def test_the_number_of_connections_fits_the_limit_of_open_files():
    assert connection_limit(1024) == 512
    assert connection_limit(2**20) == 512
    assert connection_limit(400) == 144
    assert connection_limit(64) == 16


@pytest.mark.slow
def test_ten_thousand_connections_that_send_nothing_leave_the_server_responsive(encoder):
    with running(make_api(encoder), max_connections=200) as port:
        kept: list[socket.socket] = []
        for number in range(10_000):
            kept.append(connect(port))
            if len(kept) > 300:  # this process has a limit of open files too
                kept.pop(0).close()
            if number % 500 == 0:
                start = time.monotonic()
                assert health(port) == {"status": "ok"}
                assert time.monotonic() - start < 5
        for one in kept:
            one.close()
