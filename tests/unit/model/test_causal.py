"""The causal probe passes every causal architecture and refuses the others by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from convo_cli.config.schema import ScratchConfig
from convo_cli.errors import ModelError
from convo_cli.model.causal import require_causal
from convo_cli.model.create import build_scratch_model
from convo_cli.model.loading import save_model
from convo_cli.model.open import open_generator

SIZE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 2}
DECODER = {**SIZE, "is_decoder": True}

CAUSAL: dict[str, Any] = {
    "gpt2": GPT,
    "gptj": {**GPT, "rotary_dim": 4},
    "gpt_neo": {
        "hidden_size": 32, "num_layers": 2, "num_heads": 2,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 4,
    },
    "gpt_neox": SIZE,
    "llama": {**SIZE, "num_key_value_heads": 1},
    "mistral": {**SIZE, "num_key_value_heads": 1, "sliding_window": 8},
    "mixtral": {**SIZE, "num_key_value_heads": 1, "num_local_experts": 4},
    "qwen2": {**SIZE, "num_key_value_heads": 1},
    "gemma3_text": {**SIZE, "num_key_value_heads": 1, "head_dim": 16, "sliding_window": 8},
    "phi": SIZE,
    "opt": {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 64,
        "word_embed_proj_dim": 32,
    },
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 2},
    "falcon": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 2},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "bart": {
        "d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 64,
        "encoder_layers": 1,
    },
    "bert": DECODER,
    "roberta": DECODER,
    "electra": {**DECODER, "embedding_size": 32},
}  # fmt: skip

SEEING = {
    "bert": SIZE,
    "roberta": SIZE,
    "xlm-roberta": SIZE,
    "camembert": SIZE,
    "electra": {**SIZE, "embedding_size": 32},
    "bert-generation": SIZE,
    "roformer": SIZE,
    "xlm": {"emb_dim": 32, "n_layers": 2, "n_heads": 2},
    "xlnet": {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64},
}


@pytest.fixture(scope="module")
def encoder(make_encoder):
    return make_encoder()


@pytest.fixture
def make(encoder):
    def make(kind, **values):
        from transformers import AutoConfig, AutoModelForCausalLM

        torch.manual_seed(0)
        config = AutoConfig.for_model(
            kind, vocab_size=len(encoder.tokenizer), pad_token_id=1, **values
        )
        return AutoModelForCausalLM.from_config(config)

    return make


@pytest.mark.parametrize("kind", CAUSAL)
def test_a_model_that_sees_no_later_token_passes_also_under_autocast(make, encoder, kind):
    model = make(kind, **CAUSAL[kind])
    require_causal(model, encoder)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        require_causal(model, encoder)


@pytest.mark.parametrize("kind", SEEING)
def test_a_model_that_sees_later_tokens_is_refused_by_name(make, encoder, kind):
    model = make(kind, **SEEING[kind])
    with pytest.raises(
        ModelError, match=f"a model of type {kind} is not a causal language model"
    ) as caught:
        require_causal(model, encoder)
    is_encoder = hasattr(model.config, "is_decoder") and kind not in ("xlm", "xlnet")
    assert ("is_decoder" in caught.value.message) == is_encoder
    assert ("is_decoder" in str(caught.value.hint)) == is_encoder
    assert "GPT-2" in str(caught.value.hint)


def test_a_model_whose_config_fits_no_text_is_refused_by_name(make, encoder):
    model = make("mpt", **CAUSAL["mpt"])
    model.transformer.blocks[0].attn.n_heads = 10
    with pytest.raises(ModelError, match="type mpt does not run on text alone"):
        require_causal(model, encoder)


def sees_the_next(logits):
    return logits.roll(-1, dims=1).index_fill(1, torch.tensor([logits.shape[1] - 1]), 0.0)


def sees_eight_ahead(logits):
    return torch.cat([logits[:, 8:], torch.zeros_like(logits[:, :8])], dim=1)


def sees_its_block_of(size):
    def block(logits):
        blocks = logits.unflatten(1, (-1, size))
        return blocks.mean(dim=2, keepdim=True).expand_as(blocks).flatten(1, 2)

    return block


def sees_the_prefix(logits):
    prefix = logits[:, :4].mean(dim=1, keepdim=True)
    return torch.cat([prefix.expand(-1, 4, -1), torch.zeros_like(logits[:, 4:])], dim=1)


@pytest.mark.parametrize(
    "leak",
    [
        sees_the_next,
        sees_eight_ahead,
        sees_its_block_of(2),
        sees_its_block_of(3),
        sees_its_block_of(8),
        sees_the_prefix,
    ],
    ids=["next", "eight ahead", "block of 2", "block of 3", "block of 8", "prefix"],
)
@pytest.mark.parametrize("share", [1.0, 0.01])
def test_a_model_that_sees_some_later_tokens_is_refused_too(
    make, encoder, monkeypatch, leak, share
):
    model = make("gpt2", **GPT)
    forward = model.forward

    def leaking(**inputs):
        output = forward(**inputs)
        output.logits = output.logits + share * leak(output.logits)
        return output

    monkeypatch.setattr(model, "forward", leaking)
    with pytest.raises(ModelError, match="sees the tokens that it should predict"):
        require_causal(model, encoder)


@pytest.mark.parametrize("context", [2, 3, 5, 24, 25])
def test_a_model_of_any_context_can_be_probed(encoder, context):
    size = ScratchConfig(layers=1, width=16, heads=2, context=32)
    model = build_scratch_model(size, encoder, seed=0)
    model.config.n_positions = context
    require_causal(model, encoder)


def test_the_probe_changes_no_weight_and_no_random_number(make, encoder):
    model = make("gpt2", **GPT)
    before = [parameter.clone() for parameter in model.parameters()]
    state = torch.get_rng_state()
    require_causal(model, encoder)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(
        torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True)
    )


def test_a_model_that_needs_more_than_text_is_refused_by_name(make, encoder, monkeypatch):
    model = make("gpt2", **GPT)

    def forward(**inputs):
        raise ValueError("You have to specify pixel_values\nand more")

    monkeypatch.setattr(model, "forward", forward)
    with pytest.raises(
        ModelError,
        match=r"type gpt2 does not run on text alone \(You have .* pixel_values\)",
    ):
        require_causal(model, encoder)


def test_logits_that_are_not_finite_are_left_to_the_first_step(make, encoder):
    model = make("gpt2", **GPT)
    with torch.no_grad():
        model.transformer.ln_f.weight.fill_(1e38)
        model.transformer.ln_f.bias.fill_(3e38)
    require_causal(model, encoder)


def test_a_foreign_model_that_sees_later_tokens_is_not_opened_for_replies(
    make, encoder, tmp_path, ignore
):
    for folder, values in (("encoder", SIZE), ("decoder", DECODER)):
        save_model(make("bert", max_position_embeddings=64, **values), tmp_path / folder)
        encoder.tokenizer.chat_template = encoder.template.chat_template
        encoder.tokenizer.save_pretrained(tmp_path / folder)
    with pytest.raises(ModelError, match="type bert is not a causal language model"):
        open_generator(str(tmp_path / "encoder"), device="cpu", emit=ignore)
    opened = open_generator(str(tmp_path / "decoder"), device="cpu", emit=ignore)
    assert opened.encoder.template.name == "native"
