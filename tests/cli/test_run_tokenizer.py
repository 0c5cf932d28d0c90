"""dialogue.json and tokenizer/ of a run: for other programs, equal to those of its checkpoints."""

from __future__ import annotations

import shutil

import pytest
from transformers import AutoTokenizer

from convo_cli.storage.sealed import verify_directory
from convo_cli.text.contract import load_encoder
from tests.commands import settings

MORE = settings("training.max_steps=8")
TEXTS = ["Hello", "What is 2 + 2?", "<|user|>Hi<|end|>", " é 🙂"]


def newest(run):
    return sorted(run.glob("checkpoints/step-*"))[-1]


def assert_has_copies(run):
    checkpoint = newest(run)
    assert (run / "dialogue.json").read_bytes() == (checkpoint / "dialogue.json").read_bytes()
    verify_directory(run / "tokenizer")
    assert not list(run.glob("tokenizer/*.safetensors"))
    assert not (run / "tokenizer/state.json").exists()
    load_encoder(run / "tokenizer")  # proves that the tokenizer fits the contract


def test_transformers_and_convo_load_the_tokenizer_of_a_run(work):
    run = work / "runs/tiny"
    assert_has_copies(run)
    mine, its = (AutoTokenizer.from_pretrained(path) for path in (run / "tokenizer", newest(run)))
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    assert type(mine) is type(its)
    assert mine(TEXTS)["input_ids"] == its(TEXTS)["input_ids"]
    assert mine.apply_chat_template(messages, tokenize=False) == its.apply_chat_template(
        messages, tokenize=False
    )
    encoders = [load_encoder(path) for path in (run / "tokenizer", newest(run))]
    assert encoders[0].text_ids(TEXTS) == encoders[1].text_ids(TEXTS)


@pytest.mark.parametrize("left", ["nothing", "another dialogue.json", "another vocabulary"])
def test_a_run_without_whole_copies_resumes_and_gets_them_again(convo, work, left):
    """Earlier versions of convo wrote none."""
    run = work / "runs/tiny"
    if left == "nothing":
        shutil.rmtree(run / "tokenizer")
        (run / "dialogue.json").unlink()
    elif left == "another dialogue.json":
        (run / "dialogue.json").write_text("{}", encoding="utf-8")
    else:
        (run / "tokenizer/tokenizer.json").write_text("{}", encoding="utf-8")
    result = convo("resume", "runs/tiny", *MORE)
    assert result.code == 0
    assert "were restored from step-" in result.err
    assert_has_copies(run)
    again = convo("resume", "runs/tiny", *settings("training.max_steps=9"))
    assert "written again" not in again.err


def test_a_fork_has_them_too(convo, work):
    shutil.rmtree(work / "runs/tiny/tokenizer")
    assert convo("resume", "runs/tiny", "-q", *MORE, *settings("name=fork")).code == 0
    assert_has_copies(work / "runs/fork")
    assert not (work / "runs/tiny/tokenizer").exists()
