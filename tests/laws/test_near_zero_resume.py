"""A resume near a loss of 0 ends with the same bits as the uninterrupted run."""

from __future__ import annotations

import itertools
import json
import shutil

import pytest
import torch
from transformers import CohereConfig, CohereForCausalLM

from convo_cli.config.load import load_config
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.logs.event_log import read_metrics
from convo_cli.runs.provenance.run_info import read_run_info
from convo_cli.storage.sealed import file_sha256
from convo_cli.training.run import resume_run, start_run
from tests.cases import quick_only

DIALOGUES = [
    ["Name a colour.", "Blue."],
    ["What is the capital of France?", "Paris.", "And of Italy?", "Rome."],
    ["How are you today?", "I am fine, thank you."],
    ["Good morning!", "Good morning to you too."],
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_encoder):
    """Four dialogues, and a model whose logits are more than a matrix product."""
    folder = tmp_path_factory.mktemp("near-zero")
    (folder / "train.jsonl").write_text(
        "".join(json.dumps(dialogue) + "\n" for dialogue in DIALOGUES)
    )
    tokenizer = make_encoder().tokenizer
    torch.manual_seed(0)
    config = CohereConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=128, logit_scale=0.25,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    CohereForCausalLM(config).save_pretrained(folder / "cohere")
    tokenizer.save_pretrained(folder / "cohere")
    return folder


@pytest.mark.parametrize(
    ("batching", "precision"),
    quick_only(
        itertools.product(("packed", "padded", "whole logits"), ("fp32", "bf16")),
        ("packed", "fp32"),
        ("padded", "bf16"),
        ("whole logits", "bf16"),
    ),
)
def test_a_resume_is_exact_also_near_a_loss_of_0(make_config, folder, ignore, batching, precision):
    is_whole = batching == "whole logits"
    pretrained = {"pretrained": str(folder / "cohere"), "scratch": None}
    scratch = {"layers": 1, "width": 32, "heads": 2, "context": 128, "dropout": 0.0}
    config = make_config(
        folder,
        name=f"{batching}-{precision}".replace(" ", "-"),
        data={"train": str(folder / "train.jsonl"), "validation": []},
        tokenizer={"vocab_size": 400},
        model=pretrained if is_whole else {"scratch": scratch},
        dialogue={"template": "turns"},
        training={
            "max_steps": 150, "learning_rate": 0.03, "schedule": "constant", "precision": precision,
            "packing": "off" if batching == "padded" else "auto",
        },
        checkpoints={"every_steps": 100, "keep": 9},
    )  # fmt: skip
    run = RunDirectory(start_run(config, ignore).run_dir)
    losses = [record["loss"] for record in read_metrics(run.metrics) if record["event"] == "step"]
    assert 0 < losses[99] < 1e-3, "the resumed checkpoint is near a loss of 0"
    execution = read_run_info(run).execution
    assert (execution.is_packed, execution.has_plain_head) == (batching != "padded", not is_whole)
    cut = RunDirectory(folder / "runs" / f"{config.name}-cut")
    shutil.copytree(run.path, cut.path)
    shutil.rmtree(cut.checkpoint(150))
    notices = []
    resume_run(cut.path, "last", load_config(cut.config), notices.append)
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert file_sha256(cut.checkpoint(150) / name) == file_sha256(run.checkpoint(150) / name)
    assert not any("allows no other way" in getattr(event, "message", "") for event in notices)
    assert read_run_info(cut) == read_run_info(run)
