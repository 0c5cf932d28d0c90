"""The page of a run: complete, harmless whatever is in the run, and small."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from convo_cli.events import Event
from convo_cli.report.page import write_run_page
from convo_cli.report.reading.gathering import gather
from convo_cli.unseen import has_unseen
from tests.run_events import HOSTILE, STARTED, step
from tests.written_runs import (
    VALUES,
    changed,
    healthy,
    run_info,
    sample,
    scored,
    with_finding,
    write_run,
)

MARKUP = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'{{7*7}}{% raw %}"
EVIL = MARKUP + HOSTILE + "\u202egnp.exe\u2066\ud800\x00"
VOID = {"meta", "br", "link", "img", "hr", "input", "wbr"}


class Page(HTMLParser):
    """Elements, attributes and text of a page; fails if it is not well nested."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.ids: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self._open.pop()

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data


def page_of(run, **options) -> Page:
    html = write_run_page(gather(run, **options)).read_text(encoding="utf-8")
    assert html.lstrip().startswith("<!DOCTYPE html>")
    return Page(html)


def require_harmless(page: Page) -> None:
    """No script, no request, no handler, one id once, and only links inside the page."""
    assert set(page.tags).isdisjoint({"script", "img", "link", "iframe", "object", "form", "base"})
    for name, value in page.attributes:
        assert not name.startswith("on")
        assert name not in ("src", "srcset", "xlink:href", "formaction", "style")
        assert name != "href" or value.startswith("#")
    assert len(page.ids) == len(set(page.ids))
    assert {value[1:] for name, value in page.attributes if name == "href"} <= set(page.ids)


def test_a_healthy_run_has_everything(tmp_path):
    run = write_run(tmp_path / "runs" / "written", healthy())
    page = page_of(run)
    require_harmless(page)
    for text in (
        "A new model with 12.3M parameters was trained on 11,118 dialogues for 300 steps",
        "Validation loss went from",
        "its lowest value",
        "95 % interval",
        "does not beat echo",
        "best at the value of the real replies.",
        "beats every floor",
        "fine, thank you, 0",
        "reply 300",
        "train.jsonl",
        "model.scratch.layers",
        "most similar preset",
        "all 300 steps done",
        "2.13.0",
        "450,000",
        "No evaluation found a sign that the run is going wrong.",
    ):
        assert text in page.text, text
    assert page.tags.count("svg") > 10
    assert page.tags.count("caption") == page.tags.count("table") > 5
    assert page.tags.count("desc") == page.tags.count("figure") > 4


def test_files_with_weights_have_shares_and_losses(tmp_path):
    file = {"path": "a", "weight": 3, "num_dialogues": 1, "num_tokens": 9, "share": 0.625}
    scores = replace(scored(10, 2.0), loss_by_file=(1.25, None))
    steps = [
        replace(step(1), loss_by_file=(2.0, None), num_targets_by_file=(3, 0)),
        replace(step(2), loss_by_file=(4.0, 7.5), num_targets_by_file=(1, 5)),
    ]
    run = write_run(tmp_path / "run", [replace(STARTED, files=(file,)), *steps, scores])
    text = page_of(run).text
    assert "62.5%" in text
    assert "training loss, last 100 steps" in text
    assert "2.500" in text
    assert "1.250" in text
    assert "tokens of the steps" not in page_of(write_run(tmp_path / "plain", healthy())).text


def test_every_drawing_has_a_title_and_a_description(tmp_path):
    page = page_of(write_run(tmp_path / "run", healthy()))
    labelled = [value for name, value in page.attributes if name == "aria-labelledby"]
    ids = {one for value in labelled for one in value.split()}
    assert ids <= set(page.ids)


def hostile_run(path):
    """A run in which every text that others may choose is an attack."""
    turns = (("user", EVIL * 50), (EVIL, EVIL), ("assistant", "\u0301" * 900))
    replies = tuple(
        replace(sample(index, EVIL * 300), history=turns * 4, reference=EVIL * 100)
        for index in range(40)
    )
    finding = with_finding(scored(3, 2.0, samples=replies), EVIL, EVIL * 200)
    evil = replace(finding, metrics={"bleu-4": 1.0, "a" * 30: 2.0, EVIL: 3.0})
    started = replace(STARTED, device=EVIL, template=EVIL)
    counts = replace(started.training, num_targets_by_role={EVIL: 3})
    stop = EVIL.replace("\ud800", "")
    values = {
        **VALUES,
        "data": {"train": ["a/" + "<b>&" * 20], "speakers": {"user": [stop.replace("\x00", "")]}},
        "model": {"pretrained": "a" + "<script>alert(3)</script>" * 300},
    }
    events: list[Event] = [replace(started, training=counts), step(1), step(2), step(3), evil]
    return write_run(path, events, changed(run_info(values), 2, MARKUP * 40))


def test_a_hostile_run_is_text(tmp_path):
    run = hostile_run(tmp_path / "run")
    page = page_of(run)
    require_harmless(page)
    assert "alert(1)" in page.text
    assert not has_unseen(page.text)
    assert "\x1b" not in page.text
    assert "{{7*7}}" in page.text
    assert run.report.stat().st_size < 300_000


@pytest.mark.parametrize("name", ["<b>&\"'", "a\u202eb", "n" * 200])
def test_a_hostile_name_of_the_directory_is_text(tmp_path, name):
    page = page_of(write_run(tmp_path / name, healthy(20, 10)))
    require_harmless(page)
    assert not has_unseen(page.text)


def test_a_long_run_stays_small(tmp_path):
    run = write_run(tmp_path / "run", healthy(10_000, 50))
    write_run_page(gather(run))
    assert run.report.stat().st_size < 300_000


def test_a_run_without_any_step(tmp_path):
    run = write_run(tmp_path / "run", [])
    page = page_of(run, is_running=True)
    require_harmless(page)
    assert "No step has been logged yet." in page.text
    assert "The run has not been evaluated yet." in page.text


def test_a_run_without_evaluations(tmp_path):
    events: list[Event] = [STARTED, *(step(number) for number in range(1, 30))]
    page = page_of(write_run(tmp_path / "run", events), is_running=False)
    assert "There is no validation loss." in page.text
    assert "the process was killed, or an error" in page.text


def test_a_running_run_says_up_to_where(tmp_path):
    run = write_run(tmp_path / "run", healthy(200)[:150])
    page = page_of(run, is_running=True)
    assert "all numbers are up to step 147" in page.text
    assert "convo report" in page.text


def test_findings_come_with_their_steps_and_a_warning_on_top(tmp_path):
    broken = [
        with_finding(scored(at, 3.0), "end-token", "the end token is not learned") for at in (1, 2)
    ]
    page = page_of(write_run(tmp_path / "run", [STARTED, *broken]))
    assert "end-token, at 2 evaluations, first at step 1, last at step 2" in page.text
    assert "The last evaluation has 1 health finding." in page.text


def test_an_unreadable_file_is_named_and_the_rest_is_shown(tmp_path):
    run = write_run(tmp_path / "run", healthy(60, 20))
    run.info.write_text("{")
    run.test.write_text("{}")
    page = page_of(run)
    assert "run.json" in page.text
    assert "test.json cannot be read" in page.text
    assert "model.scratch.layers" in page.text  # from config.yaml
    run.config.write_text("{")
    page = page_of(run)
    assert "The config cannot be read." in page.text
    assert "Validation loss went from" in page.text


def test_a_changed_run_json_is_reported(tmp_path):
    run = write_run(tmp_path / "run", healthy(20, 10))
    run.info.write_text(run.info.read_text().replace('"max_steps": 300', '"max_steps": 301', 1))
    assert "run.json was changed after convo wrote it" in page_of(run).text


def test_history_has_forks_changes_and_warnings(tmp_path):
    info = changed(run_info(), 2, "training.learning_rate: 0.001 -> 0.002")
    run = write_run(tmp_path / "run", healthy(20, 10), info)
    text = page_of(run).text
    assert "fork of the run first (id ffffffff)" in text
    assert "changed: training.learning_rate: 0.001 -> 0.002" in text


def test_the_page_is_written_elsewhere_on_request(tmp_path):
    run = write_run(tmp_path / "run", healthy(20, 10))
    written = write_run_page(gather(run), tmp_path / "page.html")
    assert written == tmp_path / "page.html"
    assert not run.report.exists()
    assert re.search("<title>run: report of a run</title>", written.read_text())
