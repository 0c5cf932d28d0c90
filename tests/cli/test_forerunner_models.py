"""Models of the two forerunners continue training, after the printed command converted them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.commands import make_workplace, run_here
from tests.foreign import byte_pairs, fast

RUN = "outputs/gpt2/my chatbot"
BEST = f"{RUN}/weights/model_epoch:3_step:99_loss_best.pt"


class Callback:
    """A class of the trainer, as checkpoints of PyTorch Lightning 1.4 name it."""

    def __init__(self) -> None:
        self.monitor = "val_loss"


@pytest.fixture(scope="module")
def forerunners(tmp_path_factory):
    """A folder with a base model and, trained from it, the files that the forerunners write.

    `src/tools/model_manager.py` of multi-turn-chatbot-GPT2 saves the weights with a prefix and
    scores, of which the perplexity is a numpy number; its tokenizer adds three tokens.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = make_workplace(tmp_path_factory.mktemp("forerunners"))
    for name in ("train.jsonl", "valid.jsonl"):  # neither template has a place for system turns
        lines = (folder / name).read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if '"system"' not in line]
        (folder / name).write_text("".join(kept), encoding="utf-8")
    base = fast(byte_pairs(), eos_token="<|endoftext|>", bos_token="<|endoftext|>")
    base.save_pretrained(folder / "base")
    torch.manual_seed(0)
    size: dict[str, Any] = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 128}
    GPT2LMHeadModel(GPT2Config(vocab_size=len(base), **size)).save_pretrained(folder / "base")
    trained = GPT2LMHeadModel(GPT2Config(vocab_size=len(base) + 3, **size))
    state = {f"model.{name}": tensor for name, tensor in trained.state_dict().items()}
    state["model.transformer.h.0.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(
        {name: tensor.clone() for name, tensor in trained.state_dict().items()},
        folder / "trained.safetensors",
    )
    (folder / BEST).parent.mkdir(parents=True)
    (folder / RUN / "args.yaml").write_text("pretrained_model: 'base'\n")
    log = {"validation_loss": 3.2, "ppl": np.exp(3.2), "callbacks": {Callback: Callback()}}
    torch.save({"model": state, "log_data": log}, folder / BEST)
    # convmodel's export, as transformers before 5 saved it.
    sep = fast(byte_pairs(), eos_token="<|endoftext|>", sep_token="<sep>")
    sep.save_pretrained(folder / "convmodel")
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(sep), **size))
    model.save_pretrained(folder / "convmodel")
    (folder / "convmodel/model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "convmodel/pytorch_model.bin")
    return folder


def convert(folder: Path, error: str) -> str:
    """Paste the printed command into a shell, and return the name of the new folder."""
    hint, command = error.splitlines()[-2:]
    subprocess.run(command, shell=True, cwd=folder, check=True, capture_output=True)
    return hint.split(" this writes ")[1].split(", a folder")[0].strip("'")


def pretrained(folder: Path, source: str, template: str, name: str) -> list[str]:
    """Write a config that trains a pretrained model for one step, and return the command."""
    config = {
        "name": name,
        "output_dir": "runs",
        "data": {"train": "train.jsonl", "validation": "valid.jsonl"},
        "model": {"pretrained": source},
        "dialogue": {"template": template, "max_length": 128, "long_turns": "drop"},
        "training": {"max_steps": 1, "batch_size": 4, "warmup_steps": 0, "device": "cpu"},
        "evaluation": {"reply_dialogues": 0},
        "logging": {"tensorboard": False, "plots": False},
    }
    (folder / f"{name}.json").write_text(json.dumps(config))
    return ["train", f"{name}.json"]


@pytest.mark.skipif(os.name != "posix", reason="the printed command is for a POSIX shell")
def test_the_weights_of_multi_turn_chatbot_gpt2_are_refused_converted_and_trained(forerunners):
    refused = run_here(forerunners, *pretrained(forerunners, BEST, "cls-sep", "second"))
    assert refused.code == 2
    assert f"model.pretrained: {BEST}: a pickle, which can run code" in refused.err
    new = convert(forerunners, refused.err.rstrip())
    saved = load_file(forerunners / new / "model.safetensors")
    trained = load_file(forerunners / "trained.safetensors")
    assert saved.keys() == trained.keys() - {"lm_head.weight"}
    assert all(torch.equal(tensor, trained[name]) for name, tensor in saved.items())
    result = run_here(forerunners, *pretrained(forerunners, new, "cls-sep", "second"))
    assert result.code == 0, result.err
    assert "new token" not in result.err  # [CLS] and [SEP] have the rows that were trained


@pytest.mark.skipif(os.name != "posix", reason="the printed command is for a POSIX shell")
def test_a_convmodel_export_is_refused_converted_and_trained_with_its_own_sep(forerunners):
    refused = run_here(forerunners, "chat", "convmodel")
    assert (refused.code, refused.out) == (2, "")
    new = convert(forerunners, refused.err.rstrip())
    assert new == "convmodel-safetensors"
    result = run_here(forerunners, *pretrained(forerunners, new, "convmodel", "first"))
    assert result.code == 0, result.err
    assert "new token" not in result.err


@pytest.mark.parametrize(
    "words",
    [
        ["chat", RUN], ["resume", RUN], ["export", f"{RUN}/weights", "out"],
        ["evaluate", BEST, "valid.jsonl"], ["resume", BEST], ["export", BEST, "out"],
    ],
)  # fmt: skip
def test_every_command_refuses_the_weights_by_name(forerunners, words):
    result = run_here(forerunners, *words)
    assert (result.code, result.out) == (2, "")
    assert "model_epoch:3_step:99_loss_best.pt" in result.err.splitlines()[0]
    assert "a pickle, which can run code when it is opened" in result.err


def test_a_run_of_lightning_is_not_taken_for_one_of_convo(tmp_path):
    version = tmp_path / "lightning_logs/version_0"
    (version / "checkpoints").mkdir(parents=True)
    (version / "config.yaml").write_text("seed_everything: 1000\n")
    (version / "checkpoints/epoch=9-step=2.ckpt").write_bytes(b"PK")
    for words in (["resume", version], ["chat", version], ["export", version.parent, "out"]):
        result = run_here(tmp_path, *words)
        assert result.code == 2
        assert "checkpoints/epoch=9-step=2.ckpt, a pickle" in result.err
