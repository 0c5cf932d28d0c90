"""`convo serve` as a command: its addresses, its key, its messages, and how it stops."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import Any

import httpx
import pytest

from convo_cli.serve.wire import sockets
from tests.commands import environment, run_here
from tests.forks import start_fork
from tests.served import HELLO, PATH, post

MODEL = "exports/tiny"


class Serving:
    """A server in a process of its own."""

    def __init__(self, folder, *options, **env):
        self.process = start_fork(
            folder, "serve", "--port", 0, "--json", *options, env=environment(**env)
        )
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, self.process.communicate(timeout=60)[1].decode()
        self.ready = json.loads(line)
        self.url = self.ready["url"]

    def end(self, number=signal.SIGTERM):
        """Stop the server; return its exit code and stderr."""
        self.process.send_signal(number)
        _, err = self.process.communicate(timeout=60)
        return self.process.returncode, err.decode()


@pytest.fixture
def serve(trained):
    started: list[subprocess.Popen[bytes]] = []

    def start(*options, **env):
        serving = Serving(trained, *options, **env)
        started.append(serving.process)
        return serving

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=60)


def test_the_openai_client_talks_to_a_run_and_an_export_of_it(serve):
    import openai

    serving = serve(MODEL, "runs/tiny", "--device", "cpu")
    documented = {"url", "models"}  # in docs/json.md
    assert serving.ready.keys() == {"convo", "json_version", "command"} | documented
    assert serving.ready["models"] == ["tiny", "tiny-2"]
    assert serving.url.startswith("http://127.0.0.1:")
    messages = HELLO["messages"]
    with openai.OpenAI(base_url=f"{serving.url}/v1", api_key="unused", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["tiny", "tiny-2"]
        assert client.models.retrieve("tiny").owned_by == "convo"
        fields: Any = {"messages": messages, "temperature": 0, "max_tokens": 5}
        answer = client.chat.completions.create(model="tiny", **fields)
        text = answer.choices[0].message.content
        assert answer.usage.completion_tokens <= 5
        with client.chat.completions.create(
            model="tiny-2", stream=True, stream_options={"include_usage": True}, **fields
        ) as stream:
            chunks = list(stream)
        pieces = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
        assert "".join(pieces) == text
        assert chunks[-1].usage == answer.usage
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(model="tiny", n=2, **fields)
        assert (refused.value.param, refused.value.code) == ("n", "unsupported_parameter")
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="other", **fields)
    code, err = serving.end()
    assert code == 143
    *_, stopping, last = err.splitlines()
    assert stopping == "SIGTERM: finishing the running replies (at most 30 s)"
    assert last == "the server has stopped"
    assert "serving tiny (exports/tiny), tiny-2 (runs/tiny); Ctrl-C stops the server" in err
    assert f"chat page: {serving.url}\nAPI: {serving.url}/v1\n" in err
    assert f"POST {PATH} 200 tiny " in err
    assert f"POST {PATH} 400 unsupported_parameter " in err
    assert "Traceback" not in err


def test_a_key_from_the_environment_guards_the_api(serve):
    import openai

    serving = serve(MODEL, "-q", CONVO_API_KEY="schlüssel-mit-ü")
    client = openai.OpenAI(base_url=f"{serving.url}/v1", api_key="wrong", max_retries=0)
    with client, pytest.raises(openai.AuthenticationError):
        client.models.list()
    key = {b"Authorization": "Bearer schlüssel-mit-ü".encode()}
    assert httpx.get(f"{serving.url}/v1/models", headers=key).status_code == 200
    assert httpx.get(f"{serving.url}/health").json() == {"status": "ok"}
    assert httpx.get(f"{serving.url}/").status_code == 200
    assert serving.end(signal.SIGINT)[0] == 130


def test_a_stop_finishes_a_running_reply_and_a_second_signal_leaves_at_once(serve):
    serving = serve(MODEL, "-q")
    with httpx.stream("POST", f"{serving.url}{PATH}", json={**HELLO, "stream": True}) as response:
        serving.process.send_signal(signal.SIGTERM)
        assert "[DONE]" in response.read().decode()
    assert serving.process.wait(60) == 143


def test_a_second_signal_leaves_at_once(serve):
    serving = serve(MODEL, "-q")
    unfinished = post(b"{").replace(b"Length: 1", b"Length: 99")  # keeps the server for a while
    with socket.create_connection(("127.0.0.1", int(serving.url.rpartition(":")[2]))) as busy:
        busy.sendall(unfinished)
        assert httpx.get(f"{serving.url}/health").status_code == 200
        serving.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        start = time.monotonic()
        serving.process.send_signal(signal.SIGTERM)
        assert serving.process.wait(60) == 143
    assert time.monotonic() - start < 3


@pytest.mark.skipif(sys.platform != "linux", reason="changes the size of a pipe")
def test_a_log_that_nothing_reads_stops_neither_answers_nor_the_server(serve):
    import fcntl

    serving = serve(MODEL)
    fcntl.fcntl(serving.process.stderr, fcntl.F_SETPIPE_SZ, 4096)
    with httpx.Client(base_url=serving.url, timeout=20) as client:
        for _ in range(300):
            assert client.get("/health").status_code == 200
    serving.process.send_signal(signal.SIGTERM)
    assert serving.process.wait(20) == 143


@pytest.mark.skipif(sys.platform != "linux", reason="changes the limits of another process")
def test_a_server_without_free_files_says_so_once_and_recovers(serve):
    import resource

    serving = serve(MODEL)
    port = int(serving.url.rpartition(":")[2])
    num_open = len(os.listdir(f"/proc/{serving.process.pid}/fd"))
    resource.prlimit(serving.process.pid, resource.RLIMIT_NOFILE, (num_open + 8,) * 2)
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(60)]
    time.sleep(0.5)
    for one in idle:
        one.close()
    assert httpx.get(f"{serving.url}/health", timeout=20).status_code == 200
    code, err = serving.end()
    assert code == 143
    assert err.count("new connections must wait: Too many open files") == 1
    assert "Traceback" not in err


def refused(folder, *options, **env):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        result = run_here(folder, "serve", *options)
    assert (result.code, result.out) == (2, "")
    assert "loading" not in result.err
    return result.err


def test_a_port_in_use_is_named_before_a_model_is_loaded(trained):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert refused(trained, MODEL, "--port", port) == (
            f"error: --port {port}: already in use on 127.0.0.1\n"
            "hint: stop the other program, or use another port; --port 0 takes a free one\n"
        )


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "[::]", "8.8.8.8"])
def test_an_address_that_others_reach_needs_a_key(trained, host):
    shown = host.strip("[]")
    for options in ((), ("--api-key", "x" * 15)):
        err = refused(trained, MODEL, "--host", host, *options)
        assert err.startswith(f"error: --host {shown}: other machines can reach this address, so ")
        assert "hint: export CONVO_API_KEY=$(openssl rand -hex 24)\n" in err


def test_a_server_for_all_networks_answers_under_its_address_and_given_names(serve):
    key = "x" * 16
    serving = serve(
        MODEL, "-q", "--host", "0.0.0.0", "--allow-host", "chat.example", CONVO_API_KEY=key
    )
    assert serving.url.startswith("http://127.0.0.1:")
    headers = {"Authorization": f"Bearer {key}"}
    for host, status in (("chat.example", 200), ("evil.example", 421), ("127.0.0.1", 200)):
        url = f"{serving.url}/v1/models"
        assert httpx.get(url, headers={**headers, "Host": host}).status_code == status
        assert httpx.get(url, headers={"Host": host}).status_code == (401 if status == 200 else 421)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--host", "no.such.host.invalid"),
            "--host no.such.host.invalid: the name has no address",
        ),
        (("--host", ""), "--host '': the name has no address"),
        (("--host", "a b"), "--host a b: the name has no address"),
        (("--host", "8.8.8.8", "--api-key", "x" * 16), "--host 8.8.8.8: not an address of this"),
        (("--port", "65536"), "65536 is not between 0 and 65535"),
        (("--port", "-1"), "-1 is not between 0 and 65535"),
        (("--port", "http"), "give a whole number"),
        (("--api-key", ""), "--api-key: the key is empty"),
        (("--api-key-file", "none"), "--api-key-file none: No such file or directory"),
        (("--allow-host", "a.example:80"), "--allow-host a.example:80: not a host name"),
        (("--allow-host", "*"), "--allow-host *: not a host name"),
        (("--device", "gpu"), "--device gpu: unknown"),
        (("--max-rows", "0"), "0 is not between 1 and 256"),
        (("--load", "best"), "'best' is not one of"),
    ],
)
def test_a_wrong_option_is_refused_before_a_model_is_loaded(trained, options, message):
    assert message in refused(trained, MODEL, *options)


def test_a_missing_model_is_refused_before_the_port_is_taken(trained):
    assert "no such directory" in refused(trained, MODEL, "./nope")


def test_a_wrong_key_in_the_environment_is_named(trained):
    assert "CONVO_API_KEY: the key contains a space" in refused(trained, MODEL, CONVO_API_KEY="a b")


def test_the_missing_packages_are_named_with_the_command_that_installs_them(trained, monkeypatch):
    import importlib

    load = importlib.import_module

    def missing(name, *rest):
        if name.startswith("uvicorn"):
            raise ModuleNotFoundError("No module named 'uvicorn'")
        return load(name, *rest)

    monkeypatch.setattr("importlib.import_module", missing)
    assert refused(trained, MODEL) == (
        "error: convo serve needs the packages starlette and uvicorn (No module named 'uvicorn')\n"
        'hint: pip install "convo-cli[serve]"\n'
    )


def test_a_server_on_ipv6_shows_an_address_that_a_browser_takes(serve):
    if not socket.has_ipv6 or not os.path.exists("/proc/net/if_inet6"):
        pytest.skip("this machine has no IPv6")
    serving = serve(MODEL, "-q", "--host", "::1")
    assert serving.url.startswith("http://[::1]:")
    assert httpx.get(f"{serving.url}/health").json() == {"status": "ok"}


def test_localhost_is_served_on_the_addresses_that_the_machine_has(monkeypatch):
    addresses = [(socket.AF_INET6, "2001:db8::1"), (socket.AF_INET, "127.0.0.1")]
    listening = sockets.listen("localhost", addresses, 0)
    with listening.sockets[0] as only:
        assert len(listening.sockets) == 1
        assert only.getsockname() == ("127.0.0.1", listening.port)


def test_a_model_id_is_the_name_of_its_folder_and_cannot_break_a_line(tmp_path):
    from convo_cli.errors import UsageError
    from convo_cli.serve.served_models import model_ids

    names = ["a", "b/a", "runs/x/checkpoints/step-00000001", "<b>x", "e\x1b[2J\u202ex", "x" * 150]
    for name in names:
        (tmp_path / name).mkdir(parents=True)
    ids = model_ids([str(tmp_path / name) for name in names])
    assert ids == ["a", "a-2", "x-step-00000001", "<b>x", "e_[2J_x", "x" * 100]
    assert model_ids(["owner/name", "owner/name"]) == ["owner/name", "owner/name-2"]
    for name in ("a\nb", "a\rb", "a\u2028b", "a\n"):
        (tmp_path / name).mkdir()
        with pytest.raises(UsageError, match="line break"):
            model_ids([str(tmp_path / name)])
