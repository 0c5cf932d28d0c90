"""Models of many families with random weights whose logits are far apart."""

from __future__ import annotations

from typing import Any

import torch
import transformers

WIDTH, LAYERS = 32, 2
ROPE = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "GPT-2": ("GPT2", {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": 4, "n_positions": 128}),
    "Llama": ("Llama", ROPE),
    "Qwen2": ("Qwen2", ROPE),
    "Qwen3": ("Qwen3", {**ROPE, "head_dim": 16}),
    "Mistral with a sliding window": ("Mistral", {**ROPE, "sliding_window": 8}),
    "Gemma 2": ("Gemma2", {**ROPE, "head_dim": 8, "sliding_window": 8}),
    "ALiBi positions": ("Bloom", {"hidden_size": WIDTH, "n_layer": LAYERS, "n_head": 4}),
    "positions after a padding id": (
        "Roberta",
        {**ROPE, "is_decoder": True, "max_position_embeddings": 140, "pad_token_id": 1},
    ),
    "a recurrent state": ("Mamba", {"hidden_size": 16, "num_hidden_layers": 1}),
}


def build(kind: str, options: dict[str, Any], vocab_size: int) -> Any:
    """Return a model in evaluation mode."""
    config = getattr(transformers, f"{kind}Config")(vocab_size=vocab_size, **options)
    config.bos_token_id = config.eos_token_id = None
    config.tie_word_embeddings = False  # a tied random model repeats its last token
    torch.manual_seed(0)
    name = "CausalLM" if kind == "Roberta" else "LMHeadModel"
    cls = (
        getattr(transformers, f"{kind}ForCausalLM", None)
        or getattr(transformers, f"{kind}For{name}", None)
        or getattr(transformers, f"{kind}LMHeadModel")
    )
    model = cls(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(3.0)
        model.get_output_embeddings().weight.normal_(0.0, 0.35)
    return model
