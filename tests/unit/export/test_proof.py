"""The receipt: an altered weight, token, template or setting prevents it."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from convo_cli.errors import CheckpointError
from convo_cli.export.bounded.runtime_pipe import RuntimeFailedError
from convo_cli.export.exporting import _read
from convo_cli.export.formats import FORMATS
from convo_cli.export.proof import proving
from convo_cli.export.proof.answer_comparison import DifferenceError
from convo_cli.export.proof.proving import prove
from convo_cli.export.proof.receipt import Receipt


@pytest.fixture(scope="module")
def source(checkpoint):
    return _read(checkpoint, checkpoint, lambda event: None, None, None)


@pytest.fixture(scope="module")
def written(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    FORMATS["huggingface"].write(source, folder, "fp32", lambda event: None)
    return folder


@pytest.fixture
def copy(written, tmp_path):
    shutil.copytree(written, tmp_path / "copy")
    return tmp_path / "copy"


def test_an_equal_folder_gets_a_receipt_that_counts_what_was_compared(copy, source):
    receipt = prove("huggingface", copy, source, "fp32", lambda event: None)
    assert receipt == Receipt.model_validate_json((copy / "receipt.json").read_bytes())
    for part in (receipt.hard_texts, receipt.prompts):
        assert part.num == part.num_equal > 0
        assert part.first_difference is None
    assert receipt.hard_texts.num + receipt.hard_texts.num_left_out == 600
    assert receipt.replies.num_tokens == receipt.replies.num_equal_tokens > 24
    assert receipt.perplexity.checkpoint == pytest.approx(receipt.perplexity.export)
    assert receipt.perplexity.data == "replies", "this run has no data"
    assert set(receipt.absent) == {"training_texts", "perplexity"}
    assert {"latin", "cyrillic"} <= set(receipt.scripts)


def _alter_a_weight(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["transformer.h.0.mlp.c_proj.bias"] += torch.linspace(-1, 1, 16)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _alter_a_little(folder):
    """Change probabilities, but hardly the most likely token."""
    tensors = load_file(folder / "model.safetensors")
    for tensor in tensors.values():
        tensor *= 1.5
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _change(name, **values):
    def change(folder):
        path = folder / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def _change_template(folder):
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        path = folder / name
        path.write_text(path.read_text().replace("<|end|>", "<|user|>"))


def _break_template(folder):
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no') }}")


def _swap_tokens(folder):
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text())
    vocabulary = values["model"]["vocab"]
    names = [one[0] for one in vocabulary]
    one, other = names.index("▁the"), names.index("▁you")
    vocabulary[one][0], vocabulary[other][0] = vocabulary[other][0], vocabulary[one][0]
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_alter_a_weight, "the reply to dialogue 1 .*differs at token|the perplexity of"),
        (_alter_a_little, "the reply to dialogue|the perplexity of"),
        (_change("generation_config.json", repetition_penalty=3.0), "the reply to dialogue"),
        (_change("generation_config.json", eos_token_id=5), "ends with ids .5., but not with"),
        (_change_template, 'the prompt of dialogue 1 \\("Hello!"\\) differs at token'),
        (_break_template, "the prompt of dialogue 1 .* is refused"),
        (_swap_tokens, "hard text|the prompt of dialogue"),
    ],
)
def test_a_damage_prevents_the_receipt_and_is_named(copy, source, damage, said, monkeypatch):
    damage(copy)
    monkeypatch.setattr(proving, "differing_texts", lambda folder, contract: iter(()))
    with pytest.raises(CheckpointError, match=f"nothing was exported: in transformers, .*{said}"):
        prove("huggingface", copy, source, "fp32", lambda event: None)
    assert not (copy / "receipt.json").exists()


def _trim_no_text(folder):
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text().replace("| trim", ""))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_trim_no_text, "chat_template.jinja: another chat template"),
        (_change("generation_config.json", eos_token_id=5), "eos_token_id is .5., but"),
    ],
)
def test_a_file_that_states_another_contract_prevents_the_receipt(copy, source, damage, said):
    damage(copy)
    with pytest.raises(CheckpointError, match=f"nothing was exported: .*{said}"):
        prove("huggingface", copy, source, "fp32", lambda event: None)


def test_without_its_runtime_an_export_says_that_it_was_not_checked(copy, source, monkeypatch):
    monkeypatch.setattr(proving, "missing_modules", lambda about: ["transformers"])
    events = []
    receipt = prove("huggingface", copy, source, "fp32", events.append)
    assert (receipt.runtime, receipt.hard_texts, receipt.replies) == (None, None, None)
    assert any("not checked here" in getattr(event, "message", "") for event in events)
    assert (copy / "expected.json").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"repetition_penalty": 1.5}, {"temperature": 0.0, "repetition_penalty": 2.0},
        {"top_k": 3, "top_p": 0.5},
        {"max_length": 32}, {"template": "chatml"}, {"template": "cls-sep"},
    ],
    ids=str,
)  # fmt: skip
def test_any_settings_and_any_window_can_be_proved(make_checkpoint, tmp_path, settings):
    checkpoint = make_checkpoint(tmp_path / "run", **settings)
    source = _read(checkpoint, checkpoint, lambda event: None, None, None)
    folder = tmp_path / "out"
    folder.mkdir()
    FORMATS["huggingface"].write(source, folder, "fp32", lambda event: None)
    assert prove("huggingface", folder, source, "fp32", lambda event: None).prompts.num > 0


def test_without_a_prompt_that_fits_there_is_no_receipt(make_checkpoint, tmp_path):
    checkpoint = make_checkpoint(tmp_path / "run", max_length=4)
    source = _read(checkpoint, checkpoint, lambda event: None, None, None)
    (tmp_path / "out").mkdir()
    FORMATS["huggingface"].write(source, tmp_path / "out", "fp32", lambda event: None)
    with pytest.raises(CheckpointError, match="no test prompt fits into 4 tokens"):
        prove("huggingface", tmp_path / "out", source, "fp32", lambda event: None)


def test_a_runtime_that_fails_is_reinstalled_and_other_ids_are_reported():
    about = FORMATS["gguf"].about()
    failed = proving._hint(about, RuntimeFailedError("it cannot be opened or used (ImportError)"))
    assert "pip install --upgrade --force-reinstall xllamacpp; otherwise this is a def" in failed
    assert "pip install" not in proving._hint(about, DifferenceError("other ids"))
