"""The card tells what is known of a checkpoint, and leaves out what is not."""

from __future__ import annotations

import getpass
import json
import shutil
import socket
from dataclasses import replace

import pytest
from huggingface_hub import ModelCard, metadata_load

from convo_cli.export.card.model_card import write_card
from convo_cli.runs.provenance.run_info import Parent, read_run_info, write_provenance
from tests.unit.export.card.conftest import ABOUT, RECEIPT, TALKS, write_lines


@pytest.fixture
def card_of(tmp_path):
    def write(source, *, title="talker", about=ABOUT, receipt=RECEIPT):
        folder = tmp_path / "aside"
        folder.mkdir(exist_ok=True)
        write_card(folder, title, "huggingface", about, source, receipt)
        return (folder / "README.md").read_text(encoding="utf-8")

    return write


def headings(card):
    return [line[3:] for line in card.splitlines() if line.startswith("## ")]


def test_a_whole_run_fills_every_section(card_of, source):
    card = card_of(source)
    assert headings(card) == [
        "How to use it", "Training data", "What was trained on", "Training", "Scores",
        "Health of the replies", "Check of this export", "Limits", "Licence", "How it was made",
    ]  # fmt: skip
    for fact in (
        "trained from scratch with [convo]",
        "Architecture: `gpt2`, ",
        "a reply ends with `<|end|>`",
        "| training 1 | 4 | 8 | 1 | `",
        "| training 2 | 2 | 4 | 0 | `",
        "Writing systems, by their share of the letters: Latin ",
        "Trained on 11,118 dialogues.",
        "**Leak:** 1 of 2 validation dialogues are also in the training data",
        "**Leak:** 2 of 3 test dialogues are also in the training data",
        "User turns are targets, too, for the first 50 % of the run.",
        "600,000 of 1,343,000 tokens are targets (44.7 %).",
        "382 dialogues longer than 128 tokens became windows",
        "| `training.max_steps` | 7 |",
        "On the test data, the loss is 2.750 nats per target and the perplexity 15.60, over 321",
        "| bleu-4 | 3.25 | beats every floor | 2.00 to 4.00 | 1.00 |",
        "- The scores come from only 3 replies.",
        "On the validation data, which also chose the checkpoint, the loss is 2.500",
        "75 % of the replies ended before the token limit.",
        r"**Finding:** The model echoes \*you\*.",
        "for 600 of 600 hard texts (convo's own, of many scripts and signs), 12 of 12 prompts, ",
        "287 of 288 tokens of greedy replies (1 diff",
        "Perplexity on first replies of the validation data (300 tokens): 15.510; the checkpoint's",
        "sequences of at most 128 tokens",
        "This model has no licence yet.",
        "Checkpoint: step 0 of the run `0123456789abcdef`, last checkpoint",
        'client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="unused")',
    ):
        assert fact in card, fact


def test_the_hub_reads_the_metadata_back(card_of, source, tmp_path):
    card_of(source, title="a: talker")
    file = tmp_path / "aside" / "README.md"
    found, card = metadata_load(file), ModelCard.load(file)
    assert found["library_name"] == "transformers"
    assert found["pipeline_tag"] == "text-generation"
    assert found["tags"] == ["conversational", "convo"]
    assert found["language"] == ["ko"]
    assert not {"license", "base_model", "datasets"} & found.keys()
    assert card.data.model_name == "a: talker"
    scores = {one.metric_name: one.metric_value for one in card.data.eval_results}
    assert scores == {"loss": 2.75, "perplexity": 15.6, "bleu-4": 3.25}
    assert {one.dataset_split for one in card.data.eval_results} == {"test"}
    assert card.data.to_dict() == found
    assert card.text.lstrip().startswith("# a: talker\n")


def test_nothing_names_a_user_a_host_a_path_or_a_data_file(card_of, source, run, tmp_path):
    card = card_of(source)
    names = ("jane", "Jane", "chat2", "jsonl", str(tmp_path), "/tmp", "home")
    for name in (*names, getpass.getuser(), socket.gethostname()):
        assert name not in card, name


def test_without_test_data_the_validation_scores_are_the_metadata(card_of, run, source_of):
    run.test.unlink()
    card = card_of(source_of(run.checkpoint(0)))
    assert "dataset:\n      name: validation data of the run" in card
    assert "On the test data" not in card
    assert "| bleu-4 | 2.00 |" in card
    assert "It was scored on the validation data, and on no test data." in card


def test_scores_of_other_weights_are_not_those_of_the_export(card_of, run, source_of):
    weights = json.loads(run.test.read_text())["weights"]
    for file in (run.metrics, run.test):
        file.write_text(file.read_text().replace(weights, "0" * 16))
    card = card_of(source_of(run.checkpoint(0)))
    assert not {"Scores", "Health of the replies"} & set(headings(card))
    assert "model-index" not in card
    assert "It was scored on no data, and on no test data." in card


@pytest.mark.parametrize("change", ["moved", "changed"])
def test_data_that_is_not_there_any_more_is_named_by_its_hash_alone(
    card_of, run, source_of, change
):
    file = run.path.parent / "jane-doe.jsonl"
    file.rename(file.with_name("x")) if change == "moved" else write_lines(file, TALKS)
    card = card_of(source_of(run.checkpoint(0)))
    assert "| training 1 | 4 | `" in card
    assert "Leak" not in card
    assert "Writing systems" not in card
    assert "language:" not in card


def test_a_run_without_log_and_scores_has_no_such_sections(card_of, run, source_of):
    run.metrics.unlink()
    run.test.unlink()
    card = card_of(source_of(run.checkpoint(0)))
    assert not {"Scores", "Health of the replies"} & set(headings(card))
    assert "tokens are targets" not in card
    assert "| training 1 | 4 | 8 | 1 | `" in card


def test_a_damaged_log_and_links_in_the_run_do_not_stop_an_export(card_of, run, source_of):
    run.metrics.write_bytes(b'{"event": "evaluation", "step": 0, "loss": "x"}\n\xff\n[[[[\n')
    run.test.unlink()
    run.test.symlink_to("/etc/hostname")
    run.training_dialogues.write_bytes(b"damaged")
    assert "Scores" not in headings(card_of(source_of(run.checkpoint(0))))


def test_a_fork_names_its_parent(card_of, run, source_of):
    info = read_run_info(run)
    parent = Parent(run_id="f" * 32, name="jane's run", step=40)
    write_provenance(run, info.model_copy(update={"parent": parent}))
    card = card_of(source_of(run.checkpoint(0)))
    assert f"Fork of the run `{'f' * 32}` at step 40" in card
    assert "jane's run" not in card


def test_a_checkpoint_out_of_its_run_has_its_step_alone(card_of, run, source_of, tmp_path):
    alone = shutil.copytree(run.checkpoint(0), tmp_path / "elsewhere")
    card = card_of(source_of(alone), receipt=RECEIPT.model_copy(update={"step": None}))
    assert headings(card) == [
        "How to use it", "Check of this export", "Limits", "Licence", "How it was made",
    ]  # fmt: skip
    assert "Checkpoint: step 0 of the run `0123456789abcdef`\n" in card


def test_an_export_of_an_export_keeps_what_its_publisher_wrote(card_of, run, source_of, tmp_path):
    export = shutil.copytree(run.checkpoint(0), tmp_path / "export")
    (export / "state.json").unlink()
    stated = "license: apache-2.0\nlanguage: [en, no, <b>]\nbase_model: a/b\n"
    (export / "README.md").write_text(f"---\n{stated}base_model_relation: finetune\n---\n# x")
    found = metadata_load_of(card_of(source_of(export)), tmp_path)
    assert (found["license"], found["language"]) == ("apache-2.0", ["en", "no"])
    assert (found["base_model"], found["base_model_relation"]) == ("a/b", "finetune")
    assert "model-index" not in found


def metadata_load_of(card, tmp_path):
    (tmp_path / "read.md").write_text(card, encoding="utf-8")
    return metadata_load(tmp_path / "read.md")


def test_an_export_without_a_runtime_says_that_it_was_not_checked(card_of, source):
    card = card_of(source, receipt=RECEIPT.model_copy(update={"runtime": None}))
    assert "Not checked where it was written" in card
    assert "Opened by" not in card


def test_a_format_without_a_server_shows_no_client(card_of, source):
    assert "OpenAI" not in card_of(source, about=replace(ABOUT, server=None, library=None))
