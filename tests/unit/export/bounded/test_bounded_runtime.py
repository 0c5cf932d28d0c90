"""The runtime process: whatever a runtime does ends in one error, and nothing of it stays."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import psutil
import pytest

from convo_cli.export.bounded.bounded_runtime import BoundedRuntime
from convo_cli.export.bounded.runtime_pipe import RuntimeFailedError
from convo_cli.export.bounded.runtime_process import Limits

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the limits are those of Linux")
RUNTIME = """
import ctypes, os, signal, socket, subprocess, sys, threading, time
from convo_cli.export.format import About

class Runtime:
    name, version, stop_ids = "test", "test 1", [3]
    def text_ids(self, text):
        {text}
        return [len(text)]
    def prompt_ids(self, messages): return [len(one["content"]) for one in messages]
    def greedy(self, ids, num_tokens): return list(ids)[:num_tokens]
    def nll(self, ids, start): return [0.5] * (len(ids) - start)

def about(): return About(summary="", usage="")
def write(source, folder, dtype, emit): ...
def open_runtime(folder, base):
    {open}
    return Runtime()
"""
LIMITS = Limits(2**29, 60)


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """A function that opens a runtime whose methods run some code."""
    runtimes = []

    def open_with(*, text="pass", code="pass", limits=LIMITS):
        name = f"runtime_of_{tmp_path.name}_{len(runtimes)}"
        (tmp_path / f"{name}.py").write_text(RUNTIME.format(text=text, open=code))
        monkeypatch.syspath_prepend(str(tmp_path))
        folder = tmp_path / "export"
        folder.mkdir(exist_ok=True)
        runtimes.append(BoundedRuntime(import_module(name), folder, None, limits))
        return runtimes[-1]

    yield open_with
    for runtime in runtimes:
        runtime.__exit__(None, None, None)


def failure(runtime, ask=lambda one: one.text_ids(["a"])):
    with runtime, pytest.raises(RuntimeFailedError) as caught:
        ask(runtime)
    assert caught.value.exit_code == 5
    assert caught.value.message.isprintable()
    return caught.value.message


def test_a_runtime_answers_in_the_order_of_the_questions(opened):
    with opened() as runtime:
        assert (runtime.opened.name, runtime.opened.stop_ids) == ("test", [3])
        assert runtime.text_ids(["a", "", "über"]) == [[1], [0], [4]]
        assert runtime.prompt_ids([[{"role": "user", "content": "Hi"}]]) == [[2]]
        assert runtime.greedy([[1, 2, 3], [4]], 2) == [[1, 2], [4]]
        assert runtime.nll([([1, 2, 3], 1)]) == [[0.5, 0.5]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ctypes.string_at(0)", r"SIGSEGV"),
        ("os.abort()", "SIGABRT"),
        ("os._exit(3)", "exit code 3"),
        ("x = [bytearray(2**26) for _ in range(100)]", "more than 512 MiB of memory"),
        ("return [2**30] * 2**22", "more than 33,554,432 bytes"),
        ("return ['a']", "not valid"),
        ("return [-1]", "id out of range"),
        ("return [2**31]", "id out of range"),
        ("return [1.5]", "not valid"),
        ("return [float('nan')]", "not JSON compliant|not valid"),
        ("raise RuntimeError('no \\x1b[31m tokens')", r"RuntimeError: no \\x1b\[31m tokens"),
        ("socket.create_connection(('192.0.2.1', 80), 5)", "has no network"),
        ("socket.getaddrinfo('example.org', 80)", "has no network"),
        ("socket.socket(socket.AF_UNIX).connect('/run/x')", "has no network"),
        ("sys.exit(4)", "SystemExit: 4"),
        ("open('/dev/fd/2', 'w').write('\\x1b[31m bad weights\\n' * 9999); os._exit(1)",
         r"\(exit code 1\): .*\\x1b\[31m bad weights"),
    ],
)  # fmt: skip
def test_a_fault_of_a_runtime_is_one_error(opened, text, said):
    assert re.search(said, failure(opened(text=text)))


def test_a_runtime_that_cannot_open_the_export_says_why(opened):
    message = failure(opened(code="raise ValueError('of another program')"))
    assert "cannot be opened or used (ValueError: of another program)" in message


@pytest.mark.parametrize("code", ["while True: pass", "time.sleep(1000)", "signal.pause()"])
def test_a_runtime_that_hangs_is_ended(opened, code):
    started = time.monotonic()
    message = failure(opened(text=code, limits=Limits(2**29, 4)))
    assert "takes more than 4 s" in message
    assert time.monotonic() - started < 30


def test_cpu_time_ends_a_runtime_that_holds_the_interpreter(opened):
    """Two threads spend the time of the limit in half of it."""
    code = "[threading.Thread(target=lambda: sum(iter(int, 1))).start() for _ in range(2)]; x = 1"
    assert "takes more than 3 s" in failure(
        opened(text=f"{code}; sum(iter(int, 1))", limits=Limits(2**30, 3))
    )


@pytest.mark.parametrize("text", ["print('x' * 99999, flush=True)", "os.write(1, b'{}\\n' * 999)"])
def test_what_a_runtime_prints_does_not_touch_the_answers(opened, text, capfd):
    with opened(text=text) as runtime:
        assert runtime.text_ids(["abc", "a"]) == [[3], [1]]
    assert capfd.readouterr() == ("", "")


def test_the_children_of_a_runtime_end_with_it(opened, tmp_path):
    code = "p = subprocess.Popen(['/bin/sleep', '1000']); (folder / 'pid').write_text(str(p.pid))"
    with opened(code=code) as runtime:
        assert runtime.opened
        pid = int((tmp_path / "export" / "pid").read_text())
        assert psutil.pid_exists(pid)
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_child_that_keeps_the_pipe_open_does_not_make_the_command_wait(opened):
    text = (
        "subprocess.Popen(['/bin/sleep', '5'], start_new_session=True, close_fds=False, "
        "pass_fds=[int(one) for one in os.listdir('/proc/self/fd') if int(one) > 2]); os._exit(0)"
    )
    started = time.monotonic()
    assert "ends without an answer" in failure(opened(text=text))
    assert time.monotonic() - started < 5


def test_the_process_ends_when_its_client_dies(tmp_path):
    script = f"""
import os, sys
sys.path.insert(0, {str(tmp_path)!r})
import orphan
from pathlib import Path
from convo_cli.export.bounded.bounded_runtime import BoundedRuntime
runtime = BoundedRuntime(orphan, Path({str(tmp_path)!r}), None)
print(runtime.opened.version, flush=True)
os._exit(9)
"""
    code = "(folder / 'pid').write_text(str(os.getpid()))"
    (tmp_path / "orphan.py").write_text(RUNTIME.format(text="pass", open=code))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, env=env, text=True)
    assert (done.returncode, done.stdout) == (9, "test 1\n"), done.stderr
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_process_has_no_settings_of_the_user_and_nothing_of_the_working_folder(
    opened, tmp_path, monkeypatch
):
    work = tmp_path / "work"
    work.mkdir()
    (work / "socket.py").write_text("raise SystemExit('imported from the working folder')")
    monkeypatch.chdir(work)
    settings = ("HF_TOKEN", "LLAMA_ARG_MODEL", "PYTHONSTARTUP", "GGML_N_THREADS")
    for name in settings:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    code = f"assert not set({settings}) & set(os.environ); assert '' not in sys.path"
    threads = "assert int(os.environ['OMP_NUM_THREADS']) <= os.cpu_count()"
    with opened(code=f"{code}; {threads}") as runtime:
        assert runtime.opened.name == "test"


def test_loopback_is_open_to_a_server_of_the_runtime_itself(opened):
    code = (
        "s = socket.create_server(('127.0.0.1', 0)); "
        "socket.create_connection(s.getsockname()).close()"
    )
    with opened(code=code) as runtime:
        assert runtime.opened.name == "test"


def test_a_runtime_writes_no_core_dump_and_no_large_file(opened, tmp_path):
    file = Path(tmp_path / "large")
    text = (
        "import resource; assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0); "
        f"open({str(file)!r}, 'wb').write(bytes(2**27))"
    )
    assert "File too large" in failure(opened(text=text))
    assert file.stat().st_size <= 2**26
