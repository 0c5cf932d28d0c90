"""The receipt: any altered weight, token or template prevents it."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from convo_cli.data.dialogue import Turn
from convo_cli.errors import CheckpointError
from convo_cli.export.proof.comparison import verify_export
from convo_cli.model.open import open_generator


def original(checkpoint):
    return open_generator(str(checkpoint), device="cpu", emit=lambda event: None)


@pytest.fixture
def copy(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "copy")
    return tmp_path / "copy"


def test_an_equal_folder_gets_a_receipt_that_counts_what_was_compared(checkpoint, copy):
    receipt = verify_export(copy, original(checkpoint))
    assert receipt.num_prompts == 3
    assert receipt.num_tokens > 3 * 24


def _alter_a_weight(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["transformer.h.0.mlp.c_proj.bias"] += torch.linspace(-1, 1, 16)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _penalise_repetition(folder):
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "repetition_penalty": 3.0}))


@pytest.mark.parametrize("damage", [_alter_a_weight, _penalise_repetition])
def test_a_different_reply_is_refused_with_the_ids_of_both(checkpoint, copy, damage):
    damage(copy)
    with pytest.raises(
        CheckpointError, match=r'the reply for "Hello!" differs .*\(ids \[.*instead of \['
    ) as caught:
        verify_export(copy, original(checkpoint))
    assert caught.value.exit_code == 5


def test_a_chat_template_that_renders_differently_is_refused(checkpoint, copy):
    path = copy / "chat_template.jinja"
    path.write_text(path.read_text().replace("<|end|>", "<|user|>"))
    with pytest.raises(CheckpointError, match='the prompt for "Hello!" differs'):
        verify_export(copy, original(checkpoint))


@pytest.mark.parametrize(
    "settings",
    [
        {"repetition_penalty": 1.5}, {"temperature": 0.0, "repetition_penalty": 2.0},
        {"top_k": 3, "top_p": 0.5},
        {"max_length": 32}, {"max_length": 16}, {"template": "chatml"}, {"template": "cls-sep"},
    ],
    ids=str,
)  # fmt: skip
def test_any_settings_and_any_window_can_be_proved(make_checkpoint, tmp_path, settings):
    checkpoint = make_checkpoint(tmp_path, **settings)
    assert verify_export(checkpoint, original(checkpoint)).num_prompts > 0


def test_probes_that_do_not_fit_are_not_counted_and_without_any_there_is_no_receipt(
    make_checkpoint, tmp_path
):
    checkpoint = make_checkpoint(tmp_path, max_length=32)
    hello, long = (Turn("user", "Hello!"),), (Turn("user", "far too long " * 20),)
    assert verify_export(checkpoint, original(checkpoint), [hello, long]).num_prompts == 1
    with pytest.raises(CheckpointError, match="no test prompt fits into 32 tokens"):
        verify_export(checkpoint, original(checkpoint), [long])


@pytest.mark.parametrize(
    "source", [None, "", "{{ raise_exception('no') }}", "{{ messages.nothing.at.all }}"]
)
def test_a_chat_template_that_renders_nothing_is_a_difference(checkpoint, copy, source):
    path = copy / "chat_template.jinja"
    path.unlink()
    if source is not None:
        path.write_text(source)
    with pytest.raises(CheckpointError, match='the prompt for "Hello!" differs'):
        verify_export(copy, original(checkpoint))
