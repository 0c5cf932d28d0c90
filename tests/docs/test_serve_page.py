"""docs/serve.md: its examples work, and its tables name every field and every status."""

from __future__ import annotations

import contextlib
import http
import io
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from convo_cli.serve.requests import IGNORED, NEUTRAL, ChatRequest
from tests.served import LOCAL, ScriptedEngine, make_api, running

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/serve.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture
def port(make_encoder):
    with running(make_api(make_encoder(), ScriptedEngine("Good ", "morning"))) as port:
        yield port


def test_the_example_of_the_openai_client_works(port):
    (example,) = blocks("python")
    shown = io.StringIO()
    names: dict[str, object] = {}
    with contextlib.redirect_stdout(shown):
        exec(example.replace(LOCAL, f"http://127.0.0.1:{port}"), names)
    names["client"].close()
    assert shown.getvalue() == "Good morning"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_example_of_curl_works(port):
    (example,) = [block for block in blocks("sh") if block.startswith("curl")]
    command = example.replace(LOCAL, f"http://127.0.0.1:{port}")
    run = subprocess.run(["sh", "-c", command], capture_output=True, check=True, text=True)
    assert '"content":"Good morning"' in run.stdout


def test_every_field_of_a_request_has_its_row():
    table = PAGE.partition("## Fields of a request")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
    named = set(re.findall(r"`([a-z_]+)[.`]", "".join(rows)))
    assert named == ChatRequest.model_fields.keys() | NEUTRAL.keys() | IGNORED


def test_every_status_that_the_server_sends_has_its_row():
    table = PAGE.partition("## Status codes")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
    source = "".join(path.read_text("utf-8") for path in (ROOT / "convo_cli/serve").rglob("*.py"))
    sent = set(re.findall(r"(?:ApiError|self\._refuse)\(\s*([45]\d\d)", source))
    assert set(re.findall(r"\d\d\d", "".join(rows))) == sent | {"404", "405"}
    assert all(http.HTTPStatus(int(status)) for status in sent)


def test_every_test_in_the_table_of_attacks_exists():
    table = PAGE.partition("## Attacks and their tests")[2]
    named = re.findall(r"`(tests/[\w./]+)`", table)
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []
