"""ONNX: one graph with a cache replies like torch, and states no path of this machine."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from convo_cli.errors import ModelError
from convo_cli.export.other_runtimes import onnx_format
from tests.exported_models import (
    differences,
    greedy_by_torch,
    nll_by_torch,
    opened,
    program_of_docs,
    source_of,
)
from tests.random_models import LAYERS, ROPE, WIDTH

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

GPT2 = {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": 4, "n_positions": 128}
PADDED = {**ROPE, "pad_token_id": 0}
THETA = {"rope_type": "default", "rope_theta": 300.0}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", GPT2),
    "gpt2, another epsilon": ("GPT2", {**GPT2, "layer_norm_epsilon": 0.3}),
    "gpt_bigcode": ("GPTBigCode", GPT2),
    "gpt_neo": (
        "GPTNeo",
        {
            "hidden_size": WIDTH, "num_layers": LAYERS, "num_heads": 4, "window_size": 8,
            "attention_types": [[["global", "local"], 1]], "max_position_embeddings": 128,
        },
    ),
    "gpt_neox": ("GPTNeoX", {k: v for k, v in ROPE.items() if k != "num_key_value_heads"}),
    "gptj": ("GPTJ", {**GPT2, "rotary_dim": 4}),
    "bloom": ("Bloom", {"hidden_size": WIDTH, "n_layer": LAYERS, "n_head": 4}),
    "opt": (
        "OPT",
        {
            "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
            "ffn_dim": 48, "max_position_embeddings": 128, "word_embed_proj_dim": WIDTH,
        },
    ),
    "falcon": (
        "Falcon",
        {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 4},
    ),
    "llama": ("Llama", {**ROPE, "rope_parameters": THETA}),
    "mistral": ("Mistral", {**ROPE, "sliding_window": 8}),
    "qwen2": ("Qwen2", ROPE),
    "qwen2, a sliding window": (
        "Qwen2",
        {**ROPE, "sliding_window": 8, "use_sliding_window": True, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3", {**ROPE, "head_dim": 16}),
    "gemma": ("Gemma", {**ROPE, "head_dim": 8}),
    "gemma2": ("Gemma2", {**ROPE, "head_dim": 8, "sliding_window": 8}),
    "phi": ("Phi", ROPE),
    "phi3": ("Phi3", PADDED),
    "smollm3": ("SmolLM3", PADDED),
    "granite": ("Granite", ROPE),
    "cohere": ("Cohere", PADDED),
    "olmo2": ("Olmo2", PADDED),
    "stablelm": ("StableLm", ROPE),
    "starcoder2": ("Starcoder2", ROPE),
}  # fmt: skip


@pytest.fixture(scope="module")
def gpt2(make_encoder, tmp_path_factory):
    """A source, its runtime and its folder, which was moved after it was written."""
    folder = tmp_path_factory.mktemp("onnx")
    family = ("GPT2", {**GPT2, "n_layer": 1})
    source = source_of(folder / "source", family, make_encoder())
    (folder / "written").mkdir()
    onnx_format.write(source, folder / "written", "fp32", lambda event: None)
    shutil.move(folder / "written", folder / "out")
    return source, onnx_format.open_runtime(folder / "out", None), folder / "out"


def test_replies_and_losses_equal_those_of_torch(gpt2):
    source, runtime, _ = gpt2
    assert differences(runtime, source) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_architecture_replies_like_torch_and_is_written_silently(
    name, make_encoder, tmp_path, capfd
):
    source = source_of(tmp_path / "source", MODELS[name], make_encoder())
    before = {key: one.clone() for key, one in source.generator.model.state_dict().items()}
    capfd.readouterr()
    runtime = opened(onnx_format, source, tmp_path / "out")
    assert capfd.readouterr() == ("", "")
    assert differences(runtime, source) == []
    after = source.generator.model.state_dict()
    assert before.keys() == after.keys()
    assert all(after[key].equal(before[key]) for key in before)


def test_every_listed_architecture_is_compared():
    assert {name.split(",")[0] for name in MODELS} == onnx_format.about().architectures


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_half_precision_is_half_as_large_and_close(name, make_encoder, tmp_path):
    source = source_of(tmp_path / "source", MODELS[name], make_encoder())
    with torch.no_grad():
        for weight in source.generator.model.parameters():
            weight.mul_(0.5)  # near those of a trained model
    ids = np.random.default_rng(0).integers(3, 800, 60).tolist()
    full = opened(onnx_format, source, tmp_path / "fp32")
    half = opened(onnx_format, source, tmp_path / "fp16", "fp16")
    assert half.nll(ids, 1) == pytest.approx(full.nll(ids, 1), abs=0.2)
    assert half.greedy(ids, 8)
    sizes = [(tmp_path / name / "model.onnx.data").stat().st_size for name in ("fp32", "fp16")]
    assert sizes[0] == pytest.approx(2 * sizes[1], rel=0.05)


def test_the_graph_has_the_names_of_optimum(gpt2):
    source, _, out = gpt2
    session = onnxruntime.InferenceSession(out / "model.onnx")
    total = "past_sequence_length + sequence_length"
    past = ["batch_size", 4, "past_sequence_length", 8]
    assert {one.name: one.shape for one in session.get_inputs()} == {
        "input_ids": ["batch_size", "sequence_length"],
        "attention_mask": ["batch_size", total],
        "position_ids": ["batch_size", "sequence_length"],
        "past_key_values.0.key": past,
        "past_key_values.0.value": past,
    }
    rows = source.generator.model.config.vocab_size
    assert {one.name: one.shape for one in session.get_outputs()} == {
        "logits": ["batch_size", "sequence_length", rows],
        "present.0.key": ["batch_size", 4, total, 8],
        "present.0.value": ["batch_size", 4, total, 8],
    }


def test_rows_of_a_batch_may_be_padded_on_the_left(gpt2):
    source, _, out = gpt2
    session = onnxruntime.InferenceSession(out / "model.onnx")
    ids = np.random.default_rng(0).integers(3, 800, (3, 9))
    mask = np.ones((3, 9), np.int64)
    mask[1, :4] = mask[2, :8] = 0
    empty = np.zeros((3, 4, 0, 8), np.float32)
    logits = session.run(
        ["logits"],
        {
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": np.maximum(mask.cumsum(-1) - 1, 0),
            "past_key_values.0.key": empty,
            "past_key_values.0.value": empty,
        },
    )[0]
    for row, first in ((0, 0), (1, 4), (2, 8)):
        with torch.no_grad():
            expected = source.generator.model(torch.tensor(ids[row : row + 1, first:])).logits[0]
        assert np.abs(logits[row, first:] - expected.numpy()).max() < 1e-4


def test_the_graph_says_nothing_of_the_source_code_and_this_machine(gpt2):
    _, _, out = gpt2
    model = onnx.load(out / "model.onnx", load_external_data=False)
    parts = [model, model.graph, *model.graph.node, *model.graph.value_info, *model.functions]
    assert not any(part.metadata_props or part.doc_string for part in parts)
    for path in out.iterdir():
        content = path.read_bytes()
        names = [str(Path.home()), str(Path.cwd()), str(out.parent), "site-packages", sys.prefix]
        for name in [*names, "stack_trace", "forward(", ".py"]:
            assert name.encode() not in content, (path.name, name)


def test_the_weights_are_in_one_file_beside_the_graph(gpt2):
    _, _, out = gpt2
    assert sorted(path.name for path in out.iterdir()) == [
        "chat_template.jinja", "config.json", "dialogue.json", "generation_config.json",
        "model.onnx", "model.onnx.data", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    model = onnx.load(out / "model.onnx", load_external_data=False)
    stored = [one for one in model.graph.initializer if one.external_data]
    assert {entry.value for one in stored for entry in one.external_data if entry.key == "location"}
    assert all(entry.value == "model.onnx.data" for one in stored for entry in one.external_data
               if entry.key == "location")  # fmt: skip
    onnx.checker.check_model(out / "model.onnx")
    assert (out / "model.onnx").stat().st_size < 2**16
    umask = os.umask(0)
    os.umask(umask)
    assert all(path.stat().st_mode & 0o777 == 0o666 & ~umask for path in out.iterdir())


def test_the_ids_that_end_a_reply_come_from_the_folder(gpt2, tmp_path):
    _, runtime, out = gpt2
    shutil.copytree(out, tmp_path / "copy")
    path = tmp_path / "copy/generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": 7}))
    assert list(onnx_format.open_runtime(tmp_path / "copy", None).stop_ids) == [7]
    assert 7 not in runtime.stop_ids


def test_a_model_that_cannot_be_traced_is_an_error_that_names_the_reason(
    gpt2, tmp_path, monkeypatch
):
    def fail(model):
        raise RuntimeError("data-dependent\nsecond line")

    monkeypatch.setattr(onnx_format, "_trace", fail)
    with pytest.raises(ModelError, match=r"cannot be traced \(RuntimeError: data-dependent\)"):
        onnx_format.write(gpt2[0], tmp_path, "fp32", lambda event: None)


def test_the_program_of_the_docs_replies_like_the_checkpoint(gpt2, capsys):
    source, runtime, out = gpt2
    encoder = source.generator.encoder
    program = program_of_docs("onnx", onnx_format.about())
    exec(program.replace("path/to/this/folder", str(out)), {})
    ids = runtime.prompt_ids([{"role": "user", "content": "Hello!"}])
    reply = greedy_by_torch(source.generator.model, ids, 64, encoder.stop_ids)
    expected = encoder.tokenizer.decode([i for i in reply if i not in encoder.stop_ids])
    assert capsys.readouterr().out == expected + "\n"


def test_a_long_prompt_gives_the_losses_of_torch(gpt2):
    source, runtime, _ = gpt2
    ids = np.random.default_rng(1).integers(3, 800, 128).tolist()
    expected = nll_by_torch(source.generator.model, ids, 1)
    assert runtime.nll(ids, 1) == pytest.approx(expected, abs=1e-4)
