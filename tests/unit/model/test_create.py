"""Models: size, new rows, context length, saving, and the sampling settings of their folders."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from convo_cli.config.schema import GenerationSettings, ScratchConfig
from convo_cli.errors import ModelError, OutOfMemoryError
from convo_cli.model.context import context_length, require_context
from convo_cli.model.create import build_scratch_model, fit_vocabulary, train_every_row
from convo_cli.model.decoding.generator import Generator
from convo_cli.model.decoding.sampling_defaults import set_generation_defaults
from convo_cli.model.loading import load_model, save_model
from convo_cli.model.open import generation_defaults

SIZE = ScratchConfig(layers=1, width=16, heads=2, context=32, dropout=0.25, attention_dropout=0.125)


@pytest.fixture(scope="module")
def encoder(make_encoder):
    return make_encoder()


@pytest.fixture
def model(encoder):
    return build_scratch_model(SIZE, encoder, seed=1)


def test_a_new_model_has_the_stated_size_and_a_row_for_every_token(model, encoder):
    config = model.config
    assert (config.n_layer, config.n_embd, config.n_head, config.n_positions) == (1, 16, 2, 32)
    assert (config.resid_pdrop, config.embd_pdrop, config.attn_pdrop) == (0.25, 0.25, 0.125)
    assert model.get_input_embeddings().weight.shape == (len(encoder.tokenizer), 16)
    assert (config.eos_token_id, config.pad_token_id) == (encoder.stop_ids[0], encoder.pad_id)


def test_a_model_whose_weights_would_not_fit_is_refused_before_it_takes_memory(encoder):
    size = ScratchConfig(layers=150, width=32768, heads=8, context=32)
    with pytest.raises(OutOfMemoryError, match=r"a model of 1,9\d\d,\d{3},\d{3},\d{3} parameters"):
        build_scratch_model(size, encoder, seed=1)


def test_weights_on_the_disk_that_would_not_fit_are_refused_before_they_take_memory(
    model, tmp_path
):
    save_model(model, tmp_path)
    width = 2**16
    memory = psutil.virtual_memory().total + psutil.swap_memory().total
    rows = int(0.6 * memory) // (4 * width)  # in each file: the system maps no more than it has
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"n_layer": 0, "n_positions": rows, "n_embd": width, "vocab_size": rows}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").unlink()
    names = {"transformer.wte.weight": "one.safetensors", "transformer.wpe.weight": "b.safetensors"}
    index = {"weight_map": names}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    for name, file_name in names.items():
        size = 4 * rows * width
        tensor = {"dtype": "F32", "shape": [rows, width], "data_offsets": [0, size]}
        header = json.dumps({name: tensor}).encode()
        with (tmp_path / file_name).open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            file.truncate(8 + len(header) + size)  # a hole, which takes no space
    with pytest.raises(OutOfMemoryError, match=f"with {2 * rows * width + 2 * width:,} parameters"):
        load_model(str(tmp_path))


def embeddings_of(model) -> torch.Tensor:
    return model.get_input_embeddings().weight


def test_the_weights_depend_on_the_seed_alone(model, encoder):
    torch.manual_seed(99)
    again, other = (build_scratch_model(SIZE, encoder, seed=seed) for seed in (1, 2))
    weights, same, different = (embeddings_of(one) for one in (model, again, other))
    assert torch.equal(weights, same)
    assert not torch.equal(weights, different)


def test_a_saved_model_is_read_back_bit_for_bit_in_fp32(model, tmp_path):
    save_model(model, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
    }
    read = load_model(str(tmp_path))
    for (name, one), (_, other) in zip(
        model.named_parameters(), read.named_parameters(), strict=True
    ):
        assert torch.equal(one, other), name
    assert {parameter.dtype for parameter in read.parameters()} == {torch.float32}
    assert read.get_output_embeddings().weight is read.get_input_embeddings().weight


def test_weights_in_half_precision_are_read_as_fp32(model, tmp_path):
    save_model(model.bfloat16(), tmp_path)
    assert {parameter.dtype for parameter in load_model(str(tmp_path)).parameters()} == {
        torch.float32
    }


def _drop_a_tensor(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["transformer.h.0.mlp.c_fc.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _change_the_width(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "n_embd": 32}))


def _truncate(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _poison(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["transformer.ln_f.weight"][3] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("damage", [_drop_a_tensor, _change_the_width, _truncate, _poison])
def test_a_model_is_never_completed_with_random_numbers(model, tmp_path, damage):
    save_model(model, tmp_path)
    damage(tmp_path)
    with pytest.raises(ModelError, match=str(tmp_path)) as caught:
        load_model(str(tmp_path))
    assert caught.value.exit_code == 2


# The vocabulary


@pytest.mark.parametrize("is_tied", [True, False])
def test_new_tokens_get_rows_and_old_rows_stay_as_they_are(is_tied):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=40,
            n_positions=16,
            n_embd=8,
            n_layer=1,
            n_head=2,
            tie_word_embeddings=is_tied,
        )
    )
    with torch.no_grad():  # as in trained models, the mean is far from zero
        for one in {model.get_input_embeddings().weight, model.get_output_embeddings().weight}:
            one += 1.0
    before = [embeddings_of(model).clone(), model.lm_head.weight.clone()]
    assert fit_vocabulary(model, 43, seed=5) == 3
    after = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]
    for old, new in zip(before, after, strict=True):
        assert new.shape == (43, 8)
        assert torch.equal(new[:40], old)
        assert new.isfinite().all()
        # An unremarkable token: near the mean of the old ones, whose rows have norms of about 0.06.
        assert (new[40:] - old.mean(0)).norm(dim=1).max() < 2 * (old - old.mean(0)).norm(
            dim=1
        ).mean()
    assert (after[0] is after[1]) == is_tied
    assert model.config.vocab_size == 43


def test_the_new_rows_depend_on_the_seed_alone(encoder):
    rows = []
    for noise, seed in enumerate((5, 5, 6)):
        model = build_scratch_model(SIZE, encoder, seed=1)
        torch.manual_seed(noise)
        fit_vocabulary(model, len(encoder.tokenizer) + 2, seed=seed)
        rows.append(embeddings_of(model)[-2:])
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])


@pytest.mark.parametrize("padding", [2, -1])
def test_the_padding_tokens_row_is_trained_even_if_config_json_names_it(padding):
    from transformers import LlamaConfig, LlamaForCausalLM

    size: dict[str, Any] = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 8,
    }
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=40, pad_token_id=padding, tie_word_embeddings=False, **size)
    )
    train_every_row(model)
    model(input_ids=torch.tensor([[2, 39, 5]]), labels=torch.tensor([[2, 39, 5]])).loss.backward()
    gradient = embeddings_of(model).grad
    assert all(gradient[row].any() for row in (2, 39))


def test_the_padding_token_in_config_json_stays_because_roberta_counts_positions_from_it(
    model, encoder
):
    model.config.pad_token_id = 7
    set_generation_defaults(model, encoder, GenerationSettings())
    assert (model.config.pad_token_id, model.generation_config.pad_token_id) == (7, encoder.pad_id)


def test_a_model_with_more_rows_than_tokens_is_left_alone(model, encoder):
    rows = model.get_input_embeddings().weight
    for size in (len(encoder.tokenizer), len(encoder.tokenizer) - 50):
        assert fit_vocabulary(model, size, seed=0) == 0
        assert model.get_input_embeddings().weight is rows


# The context


def test_sequences_up_to_the_limit_fit_and_longer_ones_are_refused_with_both_numbers(model):
    assert context_length(model) == 32
    require_context(model, 32)
    with pytest.raises(
        ModelError, match=r"dialogue\.max_length is 33, but the model reads at most 32"
    ) as caught:
        require_context(model, 33)
    assert caught.value.hint == "--set dialogue.max_length=32"


@pytest.mark.parametrize("stated", [{"hidden_size": 8}, {"max_position_embeddings": -1}])
def test_a_model_without_a_limit_accepts_any_length(stated):
    config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(**stated))
    model = cast(Any, SimpleNamespace(config=config))
    assert context_length(model) is None
    require_context(model, 10**6)


@pytest.mark.parametrize(("kind", "limit"), [("bert", 40), ("roberta", 38)])
def test_the_stated_limit_is_one_that_the_model_can_read(kind, limit):
    from transformers import AutoConfig, AutoModelForCausalLM

    size = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 8,
    }
    config = AutoConfig.for_model(
        kind, vocab_size=50, max_position_embeddings=40, pad_token_id=1, **size
    )
    model = AutoModelForCausalLM.from_config(config)
    assert context_length(model) == limit
    model(input_ids=torch.full((1, limit), 7))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, limit + 1), 7))


# Generation defaults


@pytest.mark.parametrize(
    "settings",
    [
        GenerationSettings(),
        GenerationSettings(
            max_new_tokens=7, temperature=1.5, top_k=5, top_p=0.5, min_p=0.1, repetition_penalty=1.3
        ),
        GenerationSettings(temperature=0.0, repetition_penalty=1.2),
        GenerationSettings(top_k=0, top_p=1.0, min_p=0.0),
    ],
    ids=["default", "all", "greedy", "off"],
)
def test_generation_settings_are_saved_and_read_back(model, encoder, tmp_path, settings):
    set_generation_defaults(model, encoder, settings)
    save_model(model, tmp_path)
    read = generation_defaults(Generator(load_model(str(tmp_path)), encoder))
    unused = {"top_k", "top_p", "min_p"} if settings.temperature == 0 else set()
    assert read.model_dump(exclude=unused) == settings.model_dump(exclude=unused)
    written = json.loads((tmp_path / "generation_config.json").read_text())
    assert written["eos_token_id"] == list(encoder.stop_ids)
    assert written["pad_token_id"] == encoder.pad_id
    assert written["do_sample"] == (settings.temperature > 0)


def test_a_foreign_model_without_settings_is_sampled_with_those_of_convo(model, encoder):
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig()
    assert generation_defaults(Generator(model, encoder)) == GenerationSettings()


def test_a_foreign_default_outside_of_convos_range_is_left_out_and_the_others_count(model, encoder):
    model.generation_config.update(temperature=0.5, do_sample=True, repetition_penalty=0.8, top_k=3)
    read = generation_defaults(Generator(model, encoder))
    assert (read.temperature, read.top_k, read.repetition_penalty) == (0.5, 3, 1.0)
