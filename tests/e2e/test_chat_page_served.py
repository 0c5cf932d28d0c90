"""The chat page on `convo serve` with a trained model, to training data and back."""

from __future__ import annotations

import re
import shutil
import signal

import pytest

from convo_cli.chat.session_lines import parse_line
from convo_cli.serve.chat_page import chat_page
from convo_cli.text.contract import contract_sha256, load_encoder
from tests.browsing import browsing
from tests.cli.conftest import make_trained
from tests.commands import run_here
from tests.forks import start_fork

POLICY = "return fetch('/').then((one) => one.headers.get('Content-Security-Policy'))"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_trained(tmp_path_factory.mktemp("served"))


@pytest.fixture
def serve(folder):
    """A starter of servers, by arguments; returns the address."""
    started = []

    def start(*arguments: object) -> str:
        process = start_fork(folder, "serve", *arguments, "--port", 0)
        started.append(process)
        for line in process.stderr:
            if found := re.search(rb"http://127\.0\.0\.1:\d+/?", line):
                return found[0].decode().rstrip("/") + "/"
        raise AssertionError("the server has not started")

    yield start
    for process in started:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def test_a_conversation_becomes_training_data_and_a_session_of_the_terminal(
    driver, serve, folder, downloads
):
    named = "<img src=x onerror=alert(1)>"
    shutil.copytree(folder / "exports/tiny", folder / named, dirs_exist_ok=True)
    with browsing(driver, serve("exports/tiny", named)) as page:
        names = page.texts("#model-0 option")
        assert names == ["tiny", named]
        assert page.run(POLICY) == chat_page().headers["Content-Security-Policy"]
        page.click("#show-settings")
        assert page.find("#max_tokens").get_attribute("placeholder") == "8"
        page.write("#system", "Be brief.")
        page.write("#temperature", "0")
        page.say("Hello!")
        again = page.say("Hello!")
        page.click("#retry-1-0")
        page.until(lambda: not page.is_busy())
        assert page.replies()[-1] == again  # greedy replies are equal
        page.click("#edit-0-0")
        page.answer("Hello! How are you?")
        page.say("I am well.")
        page.click("#good-2-0")
        assert not page.all(".reply .trouble")
        page.say("word " * 500)
        assert "window" in page.text(".exchange:last-child .trouble p")
        page.choose("#model-1", names[1])
        page.say("And you?")
        assert not page.all(".exchange:last-child .trouble")
        assert sum("token" in text for text in page.texts(".facts")) == 5
        page.click("#download")
        page.until(lambda: list(downloads.glob("*.jsonl")))
    (file,) = downloads.glob("*.jsonl")
    result = run_here(folder, "validate-data", file)
    assert result.code == 0, result.out
    contract = contract_sha256(load_encoder(folder / "exports/tiny"))
    for line in file.read_bytes().split(b"\n")[:-1]:
        saved = parse_line(line)
        assert saved.record.contract == contract
        assert [one.chosen_reply.is_good for one in saved.exchanges()][:3] == [True, None, True]


def test_the_page_asks_for_the_key_of_the_server(driver, serve):
    address = serve("exports/tiny", "--api-key", "a-long-key-for-a-test")
    with browsing(driver, address, is_locked=True) as page:
        page.answer("a-long-key-for-a-test")
        page.until(lambda: page.texts("#model-0 option"))
        page.say("Hello!")
        assert not page.all(".reply .trouble")
