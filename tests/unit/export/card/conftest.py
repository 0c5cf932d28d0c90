"""A checkpoint in a run that has everything a card can tell: data, scores, a leak, a base."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from convo_cli.config.load import build_config
from convo_cli.export.format import About
from convo_cli.export.proof.receipt import Compared, Perplexities, Receipt, Replies, RuntimeVersion
from convo_cli.export.source import Source
from convo_cli.model.decoding.generator import Generator
from convo_cli.model.loading import load_model
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.loaded import find_loaded
from convo_cli.runs.logs.evaluations import weights_of
from convo_cli.runs.logs.event_log import MetricsLog
from convo_cli.runs.logs.final_scores import FinalScores, write_final_scores
from convo_cli.runs.provenance.data_files import read_data_files
from convo_cli.runs.provenance.movable import movable_config, movable_files
from convo_cli.runs.provenance.run_info import write_provenance
from convo_cli.text.contract import load_encoder
from tests.run_events import STARTED
from tests.written_runs import run_info, scored, with_finding

TALKS = [["Hello there", "Hi!"], ["How are you?", "Fine, thanks."], ["Bye", "See you!"]]
KOREAN = [["안녕하세요?", "네, 안녕하세요!"], ["오늘 날씨 어때요?", "아주 맑아요."]]


def write_lines(path, dialogues):
    text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in dialogues)
    path.write_text(text, encoding="utf-8")


@pytest.fixture(scope="session")
def whole_run(make_checkpoint, tmp_path_factory):
    """The folder of the run ``talker`` and of its data, to be copied."""
    home = tmp_path_factory.mktemp("home-of-jane")
    write_lines(home / "jane-doe.jsonl", [*TALKS, TALKS[0]])
    write_lines(home / "chat2.jsonl", KOREAN)
    write_lines(home / "valid.jsonl", [TALKS[0], ["What?", "Nothing."]])
    write_lines(home / "test.jsonl", [["Really?", "Yes."], TALKS[1], TALKS[2]])
    run = RunDirectory(home / "talker")
    checkpoint = make_checkpoint(run.path)
    files = {
        "train": [str(home / "jane-doe.jsonl"), str(home / "chat2.jsonl")],
        "validation": [str(home / "valid.jsonl")],
        "test": [str(home / "test.jsonl")],
    }
    values = {
        "name": "talker",
        "data": {**files, "speakers": {"user": ["Jane Doe"]}},
        "model": {"scratch": {"layers": 1, "width": 16, "heads": 2, "context": 128}},
        "dialogue": {"max_length": 128, "user_turns_until": 0.5},
        "training": {"max_steps": 7},
    }
    config = build_config(values, "a test")
    data = read_data_files(config.data)
    moved = movable_files(data, run)
    info = run_info().model_copy(
        update={
            "run_id": "",
            "config": movable_config(config, run),
            **moved._asdict(),
        }
    )
    write_provenance(run, info)
    weights = weights_of(checkpoint)
    own = with_finding(replace(scored(0, 2.5), weights=weights), "echo", "the model echoes *you*")
    own = replace(own, metrics={**own.metrics, "stop-rate": 0.75, "echo": 0.25})
    log = MetricsLog(run.metrics, run.samples)
    for event in (STARTED, own):
        log(event)
    log.close()
    write_final_scores(
        run,
        FinalScores(
            checkpoint=f"checkpoints/{checkpoint.name}", step=0, weights=weights, data=moved.test,
            loss=2.75, perplexity=15.6, num_targets=321, metrics={"bleu-4": 3.25},
            intervals={"bleu-4": (2.0, 4.0)}, floors={"echo": {"bleu-4": 1.0}},
            floors_sentence="all scores beat their floors", num_replies=3, num_split=0,
            cautions=("the scores come from only 3 replies",), seconds=1.0,
        ),
    )  # fmt: skip
    return home


@pytest.fixture
def run(whole_run, tmp_path):
    """A copy of the run with its data beside it."""
    return RunDirectory(shutil.copytree(whole_run, tmp_path / "home-of-jane") / "talker")


@pytest.fixture(scope="session")
def source_of():
    """Opens a folder as an export does."""

    def open_source(folder):
        loaded = find_loaded(folder)
        generator = Generator(load_model(str(folder)), load_encoder(folder), folder)
        run = RunDirectory(folder.resolve().parent.parent) if loaded else None
        return Source(folder, (), generator, loaded, run)

    return open_source


@pytest.fixture
def source(run, source_of):
    return source_of(run.checkpoint(0))


@pytest.fixture(scope="session")
def checkpoint_model(whole_run, source_of):
    """The source of the whole run, which no test may change for others."""
    return source_of(whole_run / "talker" / "checkpoints" / "step-00000000")


ABOUT = About(
    summary="a test",
    usage="### transformers\n\n```python\nstop = {stop}\n```\n",
    library="transformers",
    server="convo serve path/to/this/folder",
)
RECEIPT = Receipt(
    convo="0.1.0",
    export="huggingface",
    dtype="fp32",
    contract_sha256="c" * 64,
    chat_template_sha256="d" * 64,
    weights_sha256={"model.safetensors": "e" * 64},
    run_id="0123456789abcdef",
    step=0,
    runtime=RuntimeVersion(name="transformers", version="transformers 5.23.0"),
    how_to_check="convo export FOLDER --verify",
    hard_texts=Compared(num=600, num_equal=600),
    prompts=Compared(num=12, num_equal=12),
    replies=Replies(num=12, num_tokens=288, num_equal_tokens=287, num_ties=1),
    perplexity=Perplexities(data="validation", num_targets=300, checkpoint=15.5, export=15.51),
)
