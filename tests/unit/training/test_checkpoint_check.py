"""Checkpoint 0 is read back: every file that says something else is found before step 1."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from convo_cli.errors import ModelError
from convo_cli.runs.directory import RunDirectory
from convo_cli.training import run as module
from convo_cli.training.checkpoint_check import require_readable
from convo_cli.training.run import start_run
from tests.foreign import SIZE, byte_pairs, fast, save_foreign


@pytest.fixture(scope="module")
def saved(tmp_path_factory, make_config):
    """Checkpoint 0 of a tiny run, and its parts."""
    caught = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "require_readable", lambda folder, parts: caught.append(parts))
        result = start_run(
            make_config(
                tmp_path_factory.mktemp("run"), training={"max_steps": 1, "warmup_steps": 0}
            ),
            lambda event: None,
        )
    return RunDirectory(result.run_dir).checkpoint(0), caught[0]


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved[0], tmp_path / "copy")


def test_what_was_saved_is_read_back(saved):
    require_readable(*saved)


def _config(key, value):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))

    return change


def _tensors(change):
    def rewrite(folder):
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return rewrite


def _lose(tensors):
    del tensors["transformer.ln_f.bias"]


def _rename(tensors):
    tensors["transformer.ln_f.other"] = tensors.pop("transformer.ln_f.bias")[:-1].clone()


def _cut(tensors):
    tensors["transformer.ln_f.bias"] = tensors["transformer.ln_f.bias"][:-1].clone()


def _round(tensors):
    tensors["transformer.ln_f.bias"] = tensors["transformer.ln_f.bias"].bfloat16()


def _chat_template(folder):
    path = folder / "dialogue.json"
    path.write_text(path.read_text().replace("<|end|>", "<|user|>"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            _config("layer_norm_epsilon", 0.1),
            r"^layer_norm_epsilon is 1e-05 in the model, but 0\.1",
        ),
        (_config("n_layer", 3), r"^n_layer is 2 in the model, but 3 in the saved config"),
        (_config("model_type", "nothing"), r"^the saved config\.json cannot be read"),
        (_config("model_type", "gpt_bigcode"), r"GPT2LMHeadModel, but .* builds a GPTBigCode"),
        (_tensors(_lose), r"^32 of the model's numbers are missing .*, which hold 0 others"),
        (_tensors(_rename), r"^32 of the model's numbers are missing .*, which hold 31 others"),
        (_tensors(_cut), r"saved as \(\(31,\), 'F32'\), but is \(\(32,\), 'F32'\)"),
        (_tensors(_round), r"saved as \(\(32,\), 'BF16'\), but is \(\(32,\), 'F32'\)"),
        (_chat_template, r"^the tokenizer changes when it is saved and loaded"),
    ],
)
def test_each_difference_is_named(saved, copy, change, message):
    change(copy)
    with pytest.raises(ModelError, match=message) as caught:
        require_readable(copy, saved[1])
    assert caught.value.hint


def test_no_tensor_is_loaded(saved, monkeypatch):
    def refuse(*arguments, **named):
        raise AssertionError("a tensor was loaded")

    monkeypatch.setattr("safetensors.torch.load_file", refuse)
    monkeypatch.setattr("transformers.PreTrainedModel.from_pretrained", refuse)
    before = torch.get_rng_state()
    require_readable(*saved)
    assert torch.equal(torch.get_rng_state(), before)


def test_where_it_fails_no_run_begins(tiny_config, ignore, monkeypatch, tmp_path):
    def refuse(folder, parts):
        assert (folder / "model.safetensors").is_file()
        raise ModelError("the tokenizer is another one", hint="…")

    monkeypatch.setattr(module, "require_readable", refuse)
    with pytest.raises(ModelError, match="the tokenizer is another one"):
        start_run(tiny_config(), ignore)
    assert [
        path.name
        for path in (tmp_path / "runs").iterdir()
        if not path.name.startswith(".convo-cache")
    ] == []


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("mixtral", {**SIZE, "num_key_value_heads": 1, "num_local_experts": 2}),
        ("gpt_neox", SIZE),
        ("llama", {**SIZE, "tie_word_embeddings": True}),
    ],
)
def test_models_that_transformers_saves_under_other_names_can_be_read_back(
    tiny_config, ignore, tmp_path, kind, size
):
    """Mixtral's experts are one tensor in memory and many on disk; a tied head is not on disk."""
    folder = save_foreign(
        tmp_path / kind, kind, fast(byte_pairs(), eos_token="<|endoftext|>"), size
    )
    config = tiny_config(
        model={"scratch": None, "pretrained": str(folder)},
        training={"max_steps": 1, "warmup_steps": 0}, data={"validation": []},
    )  # fmt: skip
    assert start_run(config, ignore).step == 1
