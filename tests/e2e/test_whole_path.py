"""The user's whole path, from an empty folder to a conversation, with every kind of model."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from convo_cli.runs.logs.event_log import read_metrics
from tests.cases import quick_first
from tests.commands import PICTURES, make_workplace, run_here, settings
from tests.umask import umask

SMALL = settings(
    "tokenizer.vocab_size=700", "model.scratch.layers=2", "model.scratch.width=32",
    "model.scratch.heads=2", "model.scratch.context=128", "dialogue.max_length=128",
    "training.max_steps=6", "training.batch_size=4", "training.warmup_steps=2",
    "evaluation.every_steps=3", "evaluation.reply_dialogues=2", "generation.max_new_tokens=12",
)  # fmt: skip
LINES = ("Hello!", "What is your name?", "How are you?", "今日はどうですか。", "Thank you, bye.")
GREEDY = ("--json", "-q", "--temperature", 0)


def ok(folder, *arguments, stdin=b""):
    """Run a command that must succeed."""
    result = run_here(folder, *arguments, stdin=stdin)
    assert result.code == 0, result.err
    return result


def talk(folder, model, *lines):
    """The assistant's replies to these lines in one conversation."""
    messages = ok(folder, "chat", model, *GREEDY, stdin="\n".join(lines).encode()).json["messages"]
    return [message["content"] for message in messages if message["role"] == "assistant"]


def talk_in_plain_transformers(folder, *lines):
    """The same from a transformers pipeline that knows nothing of convo."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

    model = AutoModelForCausalLM.from_pretrained(folder)
    chat = pipeline("text-generation", model=model, tokenizer=AutoTokenizer.from_pretrained(folder))
    messages = []
    for line in lines:
        messages.append({"role": "user", "content": line})
        messages = chat(messages, do_sample=False)[0]["generated_text"]
        messages[-1] = {**messages[-1], "content": messages[-1]["content"].strip()}
    return [message["content"] for message in messages if message["role"] == "assistant"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A finished run and its export in a folder whose name has a space and non-ASCII letters."""
    folder = tmp_path_factory.mktemp("whole") / "mein Gespräch 대화"
    folder.mkdir()
    make_workplace(folder)
    (folder / "config.yaml").unlink()
    ok(
        folder,
        "init-config",
        "--train",
        "train.jsonl",
        "--validation",
        "valid.jsonl",
        "-o",
        "config.yaml",
        "-q",
    )
    ok(folder, "validate-data", "--config", "config.yaml")
    assert ok(folder, "train", "config.yaml", "-q", *SMALL).out == "runs/demo\n"
    assert ok(folder, "export", "runs/demo", "mein Modell", "-q").out == "mein Modell\n"
    return folder


@pytest.fixture
def copied(place, tmp_path):
    """A copy of that folder at another place, free to change; its data stays where it was."""
    return shutil.copytree(place, tmp_path / "another place")


def test_plain_transformers_answers_as_convo_does_and_history_matters(place):
    together = talk(place, "mein Modell", *LINES)
    assert together == talk_in_plain_transformers(place / "mein Modell", *LINES)
    assert together == talk(place, "runs/demo", *LINES)
    assert together != [reply for line in LINES for reply in talk(place, "mein Modell", line)]


def test_a_pipe_gets_the_same_replies_line_by_line(place):
    result = ok(
        place, "chat", "mein Modell", "-q", "--temperature", 0, stdin="\n".join(LINES).encode()
    )
    lines = [line.strip() for line in result.out.splitlines()]
    assert lines == [reply.replace("\n", " ") for reply in talk(place, "mein Modell", *LINES)]


def test_the_export_scores_as_the_run_did(place):
    scores = ok(place, "evaluate", "mein Modell", "valid.jsonl", "--replies", 2, "--json").json[
        "scores"
    ]
    (*_, last) = (
        record
        for record in read_metrics(place / "runs/demo/metrics.jsonl")
        if record["event"] == "evaluation"
    )
    assert scores["loss"] == pytest.approx(last["loss"], rel=1e-5)


@pytest.mark.parametrize("load", quick_first(["loss", "last", "metric"]))
def test_a_run_that_was_moved_goes_on_and_talks(copied, tmp_path, load):
    """It is moved with its data, so the relative paths still hold."""
    place = copied.rename(tmp_path / "elsewhere")
    moved = (place / "runs/demo").rename(place / "runs/moved")
    result = ok(
        tmp_path,
        "resume",
        "elsewhere/runs/moved",
        "--load",
        load,
        "-q",
        *settings("training.max_steps=8"),
    )
    assert result.out == "elsewhere/runs/moved\n"
    assert json.loads((moved / "last.json").read_text())["step"] == 8
    assert len(talk(tmp_path, "elsewhere/runs/moved", *LINES)) == len(LINES)
    ok(tmp_path, "export", "elsewhere/runs/moved", "out", "-q")


def test_everything_that_a_run_promises_is_in_its_directory(place):
    run = place / "runs/demo"
    assert {path.name for path in run.iterdir()} == {
        "config.yaml", "run.json", "metrics.jsonl", "samples.jsonl", "plots", "tensorboard",
        "checkpoints", "last.json", "best-loss.json", "best-metric.json", ".lock", "dialogue.json",
        "tokenizer", "report.html", "training-dialogues.hashes",
    }  # fmt: skip
    for plot in ("learning_rate.png", "loss.png"):
        assert (run / "plots" / plot).read_bytes().startswith(b"\x89PNG")
    (events,) = (run / "tensorboard").iterdir()
    assert b"loss" in events.read_bytes()
    assert (
        len([record for record in read_metrics(run / "metrics.jsonl") if record["event"] == "step"])
        == 6
    )
    assert "vocab_size: 700" in (run / "config.yaml").read_text(encoding="utf-8")


def test_what_sentencepiece_reads_is_what_transformers_reads(place):
    from sentencepiece import SentencePieceProcessor
    from transformers import AutoTokenizer

    pieces = SentencePieceProcessor(model_file=str(place / "mein Modell/spiece.model"))
    tokenizer = AutoTokenizer.from_pretrained(place / "mein Modell")
    for text in (*LINES, "Grüße 🙂 1,234.5"):
        assert pieces.encode(text) == tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.skipif(os.name != "posix", reason="umask")
def test_files_of_a_run_have_the_mode_that_the_umask_says(tmp_path):
    make_workplace(tmp_path)
    with umask(0o007):
        ok(tmp_path, "train", "config.yaml", "-q", *settings("training.max_steps=2"), *PICTURES)
    for folder, of_file, of_folder in (
        ("runs/tiny", 0o660, 0o770),
        ("runs/.convo-cache", 0o600, 0o700),
    ):
        paths = list((tmp_path / folder).rglob("*"))
        modes = {path: path.stat().st_mode & 0o777 for path in (tmp_path / folder, *paths)}
        assert {
            path
            for path, mode in modes.items()
            if mode != (of_folder if path.is_dir() else of_file)
        } == set()


def test_a_run_that_does_not_improve_stops_early(tmp_path):
    make_workplace(tmp_path)
    stopping = (
        "evaluation.early_stopping.patience=2",
        "evaluation.early_stopping.min_delta=0.5",
        "evaluation.every_steps=1",
    )
    answer = ok(
        tmp_path,
        "train",
        "config.yaml",
        "--json",
        *settings("training.learning_rate=1e-9", *stopping),
    ).json
    assert answer["reason"] == "validation loss did not improve in 2 evaluations"
    assert answer["step"] < 6
    again = ok(tmp_path, "resume", "runs/tiny", "--json").json
    assert (again["step"], again["reason"]) == (answer["step"], answer["reason"])


FIRST = {"turns": "<|end|>", "chatml": "<|im_end|>", "convmodel": "<sep>", "cls-sep": "[CLS]"}
"""The token that begins every dialogue, or the end token, by template."""
SCRATCH = {
    "turns": ("turns", "unigram", "assistant"),
    "turns, BPE, both sides": ("turns", "bpe", "all"),
    "chatml, BPE, last turn": ("chatml", "bpe", "last"),
    "convmodel, both sides": ("convmodel", "unigram", "all"),
    "cls-sep, BPE": ("cls-sep", "bpe", "assistant"),
}


@pytest.mark.parametrize("case", quick_first(SCRATCH))
def test_every_template_and_tokenizer_goes_the_whole_path(case, tmp_path):
    template, kind, train_on = SCRATCH[case]
    make_workplace(tmp_path)
    if template in ("convmodel", "cls-sep"):  # which have no place for a system turn
        for path in tmp_path.glob("*.jsonl"):
            lines = [
                line
                for line in path.read_text(encoding="utf-8").splitlines()
                if '"system"' not in line
            ]
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    chosen = settings(
        f"dialogue.template={template}", f"tokenizer.kind={kind}", f"dialogue.train_on={train_on}"
    )
    ok(tmp_path, "train", "config.yaml", "-q", *chosen)
    result = ok(tmp_path, "resume", "runs/tiny", "-q", *settings("training.max_steps=7"))
    assert result.err == ""
    require_same_answers(tmp_path)
    require_named_tokens(tmp_path, FIRST[template])


def make_tokenizer(folder: Path, texts, *, chat_template=None):
    """A byte-level BPE tokenizer like those of Llama 3 or Qwen, with or without a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=500, special_tokens=special, initial_alphabet=alphabet),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|endoftext|>", clean_up_tokenization_spaces=False
    )
    if chat_template:
        tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PRETRAINED = {
    "Llama without a chat template": ("llama", None, "turns"),
    "Llama with a chat template": ("llama", CHATML, "native"),
    "Qwen2 with a chat template and tied embeddings": ("qwen2", CHATML, "native"),
    "GPT-2 without a chat template": ("gpt2", None, "turns"),
}


@pytest.mark.parametrize("case", quick_first(PRETRAINED))
def test_a_pretrained_model_goes_the_whole_path(case, tmp_path, sample_dialogues):
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        Qwen2Config,
        Qwen2ForCausalLM,
    )

    family, chat_template, template = PRETRAINED[case]
    make_workplace(tmp_path)
    texts = [turn.text for dialogue in sample_dialogues for turn in dialogue.turns]
    size = make_tokenizer(tmp_path / "base", texts, chat_template=chat_template)
    common: dict[str, Any] = {"vocab_size": size, "bos_token_id": 0, "eos_token_id": 0}
    small: dict[str, Any] = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 128,
    }  # fmt: skip
    model = {
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**common, **small)),
        "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**common, **small, tie_word_embeddings=True)),
        "gpt2": lambda: GPT2LMHeadModel(
            GPT2Config(**common, n_embd=32, n_layer=2, n_head=2, n_positions=128)
        ),
    }[family]()
    model.save_pretrained(tmp_path / "base")
    chosen = settings("model.scratch=null", "model.pretrained=base")
    result = ok(tmp_path, "train", "config.yaml", *chosen)
    assert f"template: {template}, because the tokenizer has" in result.err
    assert ("to the model's embeddings for" in result.err) == (template == "turns")
    ok(tmp_path, "resume", "runs/tiny", "-q", *settings("training.max_steps=7"))
    require_same_answers(tmp_path)


def require_named_tokens(place, first):
    """Every folder names its tokens; without those for begin and unknown, CTranslate2 fails."""
    from transformers import AutoTokenizer

    folders = [path.parent for path in place.rglob("tokenizer_config.json")]
    assert {"tokenizer", "out"} < {folder.name for folder in folders}
    for folder in folders:
        written = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        assert (written["bos_token"], written["unk_token"]) == (first, "<unk>")
        tokenizer = AutoTokenizer.from_pretrained(folder)
        vocabulary = tokenizer.get_vocab()
        for name in ("bos_token", "eos_token", "pad_token", "unk_token"):
            assert written[name] == getattr(tokenizer, name)
            assert written[name] in vocabulary
        assert tokenizer.unk_token_id == 0
    config = json.loads((place / "out/config.json").read_text())
    assert config["bos_token_id"] == vocabulary[first]


def require_same_answers(folder):
    """The export of runs/tiny replies in convo and transformers as the run does."""
    ok(folder, "export", "runs/tiny", "out", "-q")
    replies = talk(folder, "out", *LINES[:3])
    assert (
        replies
        == talk(folder, "runs/tiny", *LINES[:3])
        == talk_in_plain_transformers(folder / "out", *LINES[:3])
    )
    scores = [
        ok(
            folder,
            "evaluate",
            model,
            "valid.jsonl",
            "--replies",
            1,
            "--max-new-tokens",
            8,
            "--json",
        ).json["scores"]
        for model in ("out", "runs/tiny")
    ]
    assert scores[0] == scores[1]
