"""`convo report`: the page of a run, and comparisons of runs, checkpoints and models."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from convo_cli.unseen import has_unseen
from tests.cli.conftest import make_trained
from tests.commands import PICTURES, environment, run_here, settings
from tests.full_disk import file_size_limit
from tests.unit.report.test_page import Page, hostile_run, require_harmless
from tests.written_runs import healthy, write_run

PAGE = Path("runs/tiny/report.html")


def html(path: Path) -> Page:
    page = Page(path.read_text(encoding="utf-8"))
    require_harmless(page)
    return page


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The same folder, but the run has pictures."""
    return make_trained(tmp_path_factory.mktemp("trained"), *PICTURES)


@pytest.fixture
def pair(tmp_path):
    """A folder with two runs, `a` and `b`, without models."""
    write_run(tmp_path / "a", healthy(100, 20, "of a"))
    write_run(tmp_path / "b", healthy(60, 20, "of b"))
    return tmp_path


def test_training_writes_the_page(work):
    page = html(work / PAGE)
    assert "for 6 steps" in page.text
    assert "finished" in page.text
    assert "step-00000006" in page.text
    assert "It ended with: all 6 steps done." in page.text


def test_a_run_gets_its_page_again(convo, work):
    before = (work / PAGE).read_text(encoding="utf-8")
    (work / PAGE).unlink()
    result = convo("report", "runs/tiny")
    assert result.code == 0
    assert result.out.splitlines()[-1] == str(PAGE)
    assert "Best checkpoint: step" in result.out
    after = (work / PAGE).read_text(encoding="utf-8")
    undated = re.compile(r"<footer>.*?</footer>", re.DOTALL)
    assert undated.sub("", after) == undated.sub("", before)
    assert convo("report", "runs/tiny", "-q").out == f"{PAGE}\n"


def test_the_page_is_written_elsewhere(convo, work):
    assert convo("report", "runs/tiny", "-o", "page.html", "-q").out == "page.html\n"
    html(work / "page.html")
    again = convo("report", "runs/tiny", "-o", "page.html")
    assert (again.code, "already exists" in again.err) == (2, True)
    assert convo("report", "runs/tiny", "-o", "page.html", "--force").code == 0


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["nope"], 2, "no such file or directory"),
        (["train.jsonl"], 2, "not a directory"),
        (["exports"], 5, "neither a run directory nor a model"),
        (["exports/tiny"], 2, "a model without a run"),
        (["runs/tiny/checkpoints/step-00000006"], 2, "a checkpoint; only a run has a report page"),
        (["runs/tiny/checkpoints/step-00000006"], 2, "hint: convo report runs/tiny\n"),
        (["runs/tiny", "runs/../runs/tiny"], 2, "given twice"),
        (["runs/tiny", "exports/tiny", "nope"], 2, "nope: no such file or directory"),
        (["runs/tiny"] * 9, 2, "at most 8"),
        (["runs/tiny", "-o", "runs"], 2, "a directory"),
        (["runs/tiny", "-o", "nope/page.html"], 2, "there is no folder nope"),
        (["runs/tiny", "-o", "runs"], 2, "hint: -o runs/report.html"),
        (["runs/tiny", "-o", "-"], 2, "hint: -o report.html"),
        (["runs/tinny"], 2, "did you mean runs/tiny?"),
        ([""], 2, "'': no such file or directory"),
        (["runs/tiny", "--scores", "x.json"], 2, "--scores needs several models"),
        (["runs/tiny", "exports/tiny", "--scores", "x.json"], 2, "--scores x.json: No such file"),
        ([], 2, "convo report --help"),
    ],
)
def test_a_mistake_is_named(trained, words, code, says):
    result = run_here(trained, "report", *words)
    assert (result.code, result.out) == (code, "")
    assert says in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["report", "runs/tiny", "-o"], "runs/tiny/config.yaml"),
        (["report", "runs/tiny", "-o"], "runs/tiny/checkpoints/step-00000006/state.json"),
        (["report", "runs/tiny", "-o"], "exports/tiny/config.json"),
        (["init-config", "-o"], "runs/tiny/config.yaml"),
        (["validate-data", "train.jsonl", "--fix"], "runs/tiny/metrics.jsonl"),
        (["import", "train.jsonl", "-o"], "runs/tiny/samples.jsonl"),
    ],
)
def test_force_replaces_no_file_of_a_run_or_a_model(convo, work, words, kept):
    before = (work / kept).read_bytes()
    result = convo(*words, kept, "--force")
    assert (result.code, "which convo does not overwrite" in result.err) == (2, True), result.err
    assert (work / kept).read_bytes() == before


def test_force_replaces_the_page_of_a_run(convo, work):
    (work / PAGE).write_text("old")
    assert convo("report", "runs/tiny", "-o", str(PAGE), "--force").code == 0
    html(work / PAGE)


def test_a_run_without_its_config_is_still_a_run(convo, work):
    (work / "runs/tiny/config.yaml").unlink()
    for words in (["evaluate", "runs/tiny", "valid.jsonl"], ["resume", "runs/tiny"]):
        result = convo(*words)
        assert (result.code, result.out) == (5, "")
        assert "runs/tiny/config.yaml: missing from its run" in result.err
    result = convo("report", "runs/tiny")
    assert result.code == 0
    assert "config.yaml is missing" in result.err
    assert "for 6 steps" in html(work / PAGE).text


def test_a_comparison_in_a_pipe_and_as_a_page(pair):
    result = run_here(pair, "report", "a", "b", "-o", "both.html")
    warnings = [f"warning: {name}: no checkpoint can be read" for name in "ab"]
    assert (result.code, result.err.splitlines()) == (0, warnings)
    assert "\x1b" not in result.out
    for text in ("A  a", "B  b", "bleu-4", "B: reply 60 of b", "real reply", "both.html"):
        assert text in result.out
    page = html(pair / "both.html")
    for text in ("Comparison of 2 models", "reply 100 of a", "reply 60 of b", "tokens"):
        assert text in page.text
    assert "95 % intervals" in page.text
    headline = "All have the same validation loss, 2.234."
    assert headline in page.text
    assert headline in result.out


def test_hostile_runs_are_text_in_the_terminal_too(tmp_path):
    for name in ("a", "b"):
        hostile_run(tmp_path / name)
    for words in (["a"], ["a", "b"], ["a", "b", "--json"]):
        result = run_here(tmp_path, "report", *words)
        assert result.code == 0
        assert not re.search(r"[\x00-\x08\x0b-\x1f]", result.out + result.err)
        assert not has_unseen(result.out + result.err)


def test_runs_of_other_data_and_configs_are_compared_with_cautions(convo, work):
    longer = settings("name=longer", "training.max_steps=8", "dialogue.max_length=96")
    assert (
        convo("train", "config.yaml", "-q", *longer, *settings("data.validation=train.jsonl")).code
        == 0
    )
    result = convo("report", "runs/tiny", "runs/longer", "exports/tiny", "-o", "all.html")
    assert result.code == 0
    assert "training.max_steps" in result.out
    text = " ".join(result.out.split())
    assert "the validation data differs" in text
    assert "dialogue.max_length differs, so" in text
    assert "C: no log of a run" in text
    page = html(work / "all.html")
    assert "exports/tiny" in page.text
    assert "(no log of a run)" in page.text


def test_a_checkpoint_takes_part_up_to_its_step(convo):
    found = convo("report", "runs/tiny", "runs/tiny/checkpoints/step-00000003", "--json").json
    whole, part = found["models"]
    assert (whole["kind"], whole["step"], part["kind"], part["step"]) == ("run", 6, "checkpoint", 3)
    assert part["evaluation"]["step"] == 3
    assert found["differences"] == []


def test_the_json_object_of_a_run(convo, work):
    found = convo("report", "runs/tiny", "--json").json
    assert found["page"] == str(PAGE)
    (model,) = found["models"]
    assert (model["state"], model["step"], model["problems"]) == ("finished", 6, [])


def test_a_running_run_says_so(pair):
    run = pair / "a"
    log = run / "metrics.jsonl"
    log.write_bytes(log.read_bytes()[:-40])  # the writer is in the middle of a line
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        host = os.uname().nodename
        (run / ".lock").write_text(f"process {process.pid} on {host}\n")
        assert "The run is still running" in " ".join(run_here(pair, "report", "a").out.split())
    finally:
        process.communicate(b"\n")
    assert "The log ends early" in " ".join(run_here(pair, "report", "a").out.split())


def test_a_damaged_run_is_shown_as_far_as_it_can_be_read(convo, work):
    (work / "runs/tiny/run.json").write_text("{}")
    (work / "runs/tiny/metrics.jsonl").write_text("\x00\n" + '{"event": "step", "step": 1}\n')
    result = convo("report", "runs/tiny")
    assert result.code == 0
    assert "run.json: cannot be read" in result.err
    assert "metrics.jsonl has unreadable lines, which are skipped: 1" in result.err
    assert "run.json: cannot be read" in html(work / PAGE).text


def test_the_page_of_an_empty_log_agrees_with_the_scores_beside_the_checkpoints(convo, work):
    (work / "runs/tiny/metrics.jsonl").write_bytes(b"")
    assert convo("report", "runs/tiny").code == 0
    text = html(work / PAGE).text
    assert "Problem in the run directory" in text
    assert "best-loss.json keeps the lowest one" in text
    for wrong in ("There is no validation loss", "has not been evaluated", "process was killed"):
        assert wrong not in text


@pytest.mark.parametrize("name", ["report.html", "metrics.jsonl", "samples.jsonl", "test.json"])
def test_a_link_in_the_run_is_refused(convo, work, name):
    secret = work / "secret"
    secret.write_text("private")
    (work / "runs/tiny" / name).unlink(missing_ok=True)
    (work / "runs/tiny" / name).symlink_to(secret)
    result = convo("report", "runs/tiny")
    assert (result.code, result.out) == (7, "")
    assert "a symbolic link" in result.err
    assert secret.read_text() == "private"


def test_a_full_disk_is_named_and_the_earlier_page_stays(convo, work):
    before = (work / PAGE).read_bytes()
    with file_size_limit(4096):
        result = convo("report", "runs/tiny")
    assert (result.code, result.out) == (7, "")
    assert "report.html: File too large" in result.err
    assert "hint: write the page elsewhere with -o FILE" in result.err
    assert (work / PAGE).read_bytes() == before


@pytest.mark.skipif(os.name != "posix", reason="modes")
def test_a_page_elsewhere_is_as_private_as_the_run(convo, work):
    (work / "runs/tiny").chmod(0o700)
    assert convo("report", "runs/tiny", "-o", "page.html").code == 0
    assert (work / "page.html").stat().st_mode & 0o077 == 0


def test_it_starts_without_torch(pair):
    program = (
        "import sys; sys.argv = ['convo', 'report', 'a', 'b', '-o', 'x.html']\n"
        "from convo_cli.__main__ import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'matplotlib', 'safetensors'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=pair, env=environment(), capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert run.stdout.splitlines()[-1] == "[]"
