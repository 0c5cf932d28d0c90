"""The bounded process under signals and limits, and tokenizers that fail only in use."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from convo_cli.data.dialogue import Turn
from convo_cli.errors import ModelError
from convo_cli.text.bounded import client
from convo_cli.text.bounded.process import trial_limits
from convo_cli.text.bounded.rendering import render_all
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.templates.template import make_template
from convo_cli.text.tokenizers.pretrained import open_tokenizer
from convo_cli.text.tokenizers.trained import add_special_tokens
from tests.families import FAMILIES, family_tokenizer
from tests.foreign import byte_pairs, fast
from tests.hostile_folders import FOLDERS, split

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and timers of POSIX")
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
EACH = "{% for m in messages %}{{ m.content }}{% endfor %}"


@pytest.fixture(scope="module")
def tokenizer(sample_dialogues):
    return family_tokenizer(FAMILIES["qwen"], sample_dialogues)


def test_a_signal_ends_the_wait_and_the_next_request_gets_its_own_answer(tokenizer):
    def interrupt(*_):
        raise KeyboardInterrupt

    assert render_all(tokenizer, EACH, [[Turn("user", "before")]])
    pid = client._processes[0]._popen.pid
    handler = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            render_all(tokenizer, ENDLESS, [[Turn("user", "a")]])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    (answer,) = render_all(tokenizer, EACH, [[Turn("user", "after")]])
    assert answer.text == "after"
    assert client._processes[0]._popen.pid != pid


def test_a_request_that_waits_for_one_that_ends_the_process_is_answered_by_another(tokenizer):
    """The closed pipes of the process are no fault of convo."""
    assert render_all(tokenizer, EACH, [[Turn("user", "before")]])
    first = client._processes[0]
    with ThreadPoolExecutor(3) as threads:
        with first._lock:
            waiting = [
                threads.submit(render_all, tokenizer, EACH, [[Turn("user", str(number))]])
                for number in range(3)
            ]
            time.sleep(0.2)  # they have the process, and wait for its lock
            first._kill()
        answers = [one.result(60) for one in waiting]
    assert [answer.text for (answer,) in answers] == ["0", "1", "2"]
    assert client._processes[0] is not first


def test_a_process_that_is_killed_while_it_starts_is_started_again(tokenizer):
    render_all(tokenizer, EACH, [[Turn("user", "before")]])
    client._processes[0]._kill()
    killed = client._process()
    os.kill(killed._popen.pid, signal.SIGKILL)
    (answer,) = render_all(tokenizer, EACH, [[Turn("user", "after")]])
    assert answer.text == "after"
    assert client._processes[0] is not killed


@pytest.mark.slow
def test_the_dialogues_of_a_request_share_a_time_limit(tokenizer):
    slow = "{% for a in range(99999) %}{% for b in range(2) %}{% endfor %}{% endfor %}"
    with pytest.raises(
        ModelError, match="its chat template takes more than 20 s of CPU time for a few dialogues"
    ):
        render_all(tokenizer, slow, [[Turn("user", "a")]] * 5000)


def test_a_started_process_without_a_request_ends_with_its_parent():
    process = client._Process()
    process._kill()
    assert process._popen.returncode == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_library_that_reads_or_prints_does_not_touch_requests_and_answers():
    process = client._Process()
    try:
        request = b'render {"dialogues": [], "tools": [], "options": {}, "tokens": {}}\n'
        assert process.ask(request) == b"[]\n"
        standard = [
            Path(f"/proc/{process._popen.pid}/fd/{number}").readlink() for number in (0, 1, 2)
        ]
    finally:
        process._kill()
    assert standard == [Path(os.devnull)] * 3


@pytest.mark.parametrize("says", ["retry-limit-in-match over"])
def test_a_panic_on_a_later_text_is_an_error_that_names_the_tokenizer(says):
    """The pattern backtracks only on a text that no probe has."""
    wrapped = fast(byte_pairs(), eos_token="<|endoftext|>")
    spec = json.loads(wrapped.backend_tokenizer.to_str())
    spec["pre_tokenizer"] = split("(zq|zq|zqzq)+$|.")
    wrapped._tokenizer = type(wrapped.backend_tokenizer).from_str(json.dumps(spec))
    template = make_template("chatml", wrapped)
    add_special_tokens(wrapped, template.special_tokens)
    encoder = DialogueEncoder(wrapped, template, max_length=128)
    assert encoder.text_ids(["hello"])
    for encode in (lambda text: encoder.text_ids([text]), encoder.reads_back):
        with pytest.raises(ModelError, match=f"its tokenizer fails on a text .*{says}"):
            encode("zq" * 40 + "!")


def test_padding_and_truncation_of_tokenizer_json_are_not_used(tmp_path):
    folder = FOLDERS["padding"](tmp_path / "model")
    loaded = open_tokenizer(folder, "model")
    assert (loaded.backend_tokenizer.padding, loaded.backend_tokenizer.truncation) == (None, None)
    assert len(loaded("a")["input_ids"]) == 1


def test_sparse_files_get_no_more_time_and_memory_than_large_tokenizers():
    assert trial_limits(2**40) == trial_limits(2**26)
    assert trial_limits(2**26).cpu_seconds < 90
    assert trial_limits(2**26).memory_bytes < 2**32
