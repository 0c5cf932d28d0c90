"""A GGUF file holds every tensor of a model once, with its values to the rounding of the type."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from convo_cli.errors import ModelError
from convo_cli.export.llama_cpp.gguf_tensors import require_sound, tensor_type
from tests.gguf_models import model_of, tensors_of, values_of, written
from tests.random_models import FAMILIES

gguf = pytest.importorskip("gguf", reason="the gguf package is not installed")
MODELS = {
    "GPT-2": FAMILIES["GPT-2"],
    "Llama": FAMILIES["Llama"],
    "Qwen2": FAMILIES["Qwen2"],
}


@pytest.fixture(scope="module", params=MODELS, ids=str)
def model(request, encoders):
    return model_of(*MODELS[request.param], encoders["byte-level bpe"])


def as_in_file(name, weight, config):
    """Return what the tensor of a parameter has to be, by another way than the writer's."""
    values = weight.detach().numpy()
    if config.model_type == "gpt2" and values.ndim == 2 and ".h." in name:
        return values.T
    if config.model_type == "llama" and (".q_proj." in name or ".k_proj." in name):
        size = config.head_dim
        order = [
            head * size + half * size // 2 + pair
            for head in range(len(values) // size)
            for pair in range(size // 2)
            for half in range(2)
        ]
        return values[order]
    return values


def test_every_parameter_is_one_tensor_with_its_values(model, encoders, tmp_path):
    found = tensors_of(written(tmp_path, model, encoders["byte-level bpe"]))
    names = gguf.get_tensor_name_map(
        getattr(gguf.MODEL_ARCH, model.config.model_type.upper()), model.config.num_hidden_layers
    )
    expected = {
        names.get_name(name, (".weight", ".bias")): as_in_file(name, weight, model.config)
        for name, weight in model.named_parameters()
    }
    assert found.keys() == expected.keys()
    for name, values in found.items():
        np.testing.assert_array_equal(values, expected[name], name)


@pytest.mark.parametrize(("dtype", "bits"), [("fp16", 11), ("bf16", 8)])
def test_matrices_are_rounded_to_16_bits_and_vectors_are_not(
    model, encoders, tmp_path, dtype, bits
):
    (tmp_path / "exact").mkdir()
    exact = tensors_of(written(tmp_path / "exact", model, encoders["byte-level bpe"]))
    found = tensors_of(written(tmp_path, model, encoders["byte-level bpe"], dtype))
    for name, values in exact.items():
        bound = 2.0**-bits if values.ndim > 1 and name != "position_embd.weight" else 0.0
        smallest = 2.0**-24 if dtype == "fp16" else 0.0
        assert (abs(found[name] - values) <= abs(values) * bound + smallest).all(), name


def test_blocks_of_32_values_are_rounded_to_8_bits(model, encoders, tmp_path):
    (tmp_path / "exact").mkdir()
    exact = tensors_of(written(tmp_path / "exact", model, encoders["byte-level bpe"]))
    file = written(tmp_path, model, encoders["byte-level bpe"], "q8_0")
    kinds = {one.name: one.tensor_type for one in gguf.GGUFReader(file).tensors}
    found = tensors_of(file)
    for name, values in exact.items():
        if values.ndim == 1 or name == "position_embd.weight":
            assert kinds[name] == gguf.GGMLQuantizationType.F32
        elif values.shape[-1] % 32:
            assert kinds[name] == gguf.GGMLQuantizationType.F16
        else:
            assert kinds[name] == gguf.GGMLQuantizationType.Q8_0
            # Half a step, and the rounding of the step to 16 bits.
            step = abs(values.reshape(-1, 32)).max(axis=1, keepdims=True) / 127
            error = abs(found[name] - values).reshape(-1, 32)
            assert (error <= step * (0.5 + 127 / 2**11) + 1e-6).all(), name


def test_a_tied_output_is_not_repeated(encoders, tmp_path):
    model = model_of(*FAMILIES["Llama"], encoders["byte-level bpe"])
    model.get_output_embeddings().weight = model.get_input_embeddings().weight
    model.config.tie_word_embeddings = True
    found = tensors_of(written(tmp_path, model, encoders["byte-level bpe"]))
    assert "output.weight" not in found
    assert "token_embd.weight" in found


def test_a_value_that_16_bits_cannot_hold_is_refused(encoders, tmp_path):
    model = model_of(*FAMILIES["Llama"], encoders["byte-level bpe"])
    with torch.no_grad():
        model.get_input_embeddings().weight[3, 4] = 70_000.0
    with pytest.raises(ModelError, match=r"token_embd\.weight has values"):
        written(tmp_path, model, encoders["byte-level bpe"], "fp16")


def test_a_tensor_without_a_place_is_refused(encoders, tmp_path):
    model = model_of(*FAMILIES["Llama"], encoders["byte-level bpe"])
    model.register_buffer("surprise", torch.ones(2))
    with pytest.raises(ModelError, match="has no place: surprise"):
        written(tmp_path, model, encoders["byte-level bpe"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("blk.0." + "x" * 58, (4,)),
        ("blk.0." + "ä" * 29, (4,)),
        ("a", ()),
        ("a", (0, 4)),
        ("a", (2**40, 1)),
        ("a", (2**31 - 1, 2**31 - 1)),
        ("a", (1, 1, 1, 1, 1)),
    ],
)
def test_names_and_shapes_that_a_reader_cannot_hold_are_refused(name, shape):
    with pytest.raises(ModelError):
        require_sound(name, shape)
    require_sound("b" * 63, (2**31 - 1, 4))


def test_rows_that_are_no_whole_blocks_have_16_bits():
    assert tensor_type("a", (8, 33), "q8_0") == gguf.GGMLQuantizationType.F16
    assert tensor_type("a", (33, 64), "q8_0") == gguf.GGMLQuantizationType.Q8_0


def test_the_sizes_are_those_of_the_model(model, encoders, tmp_path):
    values = values_of(written(tmp_path, model, encoders["byte-level bpe"]))
    architecture = values["general.architecture"]
    sizes = {name.split(".", 1)[1]: value for name, value in values.items()}
    assert architecture == model.config.model_type
    assert sizes["context_length"] == 128
    assert (sizes["embedding_length"], sizes["block_count"]) == (32, 2)
    assert sizes["feed_forward_length"] == (48 if architecture != "gpt2" else 128)
    assert sizes["attention.head_count"] == 4
    assert sizes["attention.head_count_kv"] == (2 if architecture != "gpt2" else 4)
