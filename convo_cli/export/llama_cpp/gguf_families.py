"""Families of models that llama.cpp computes like transformers, by the `model_type` of the config.

A family is a row here. A config with a setting that llama.cpp ignores or computes differently is
refused, because the export would reply like another model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from convo_cli.export.format import TIE
from convo_cli.export.llama_cpp.gguf_rope import rope_objection

Layout = Literal["as stored", "conv1d", "rotary pairs", "norms from one"]
"""How the tensors differ from transformers': not at all; the matrices of GPT-2's Conv1D are
transposed; the rows of queries and keys are ordered so that the two of each rotated pair are
neighbours; one is added to the norms.
"""
OTHER_FORMAT = "export in another format"
"""The hint of refusals."""
_SILU = ("silu", "swish")
_LAYERS_OF_27B = 46
"""llama.cpp scales the queries of a Gemma 2 with so many layers differently."""
_TANH_GELU = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")
_GELU_TIE = 1e-2
"""llama.cpp reads GELU from a table of 16-bit values: 2.4e-3 nats in a target of a random GPT-2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A family's architecture in llama.cpp, and what its configs must state."""

    architecture: str
    """The name of a member of `gguf.MODEL_ARCH`."""
    layout: Layout = "as stored"
    epsilon: str
    """The config's name of the number that keeps a norm from dividing by zero."""
    is_rms: bool = True
    rotates: bool = True
    """Positions rotate queries and keys; else each position has an embedding."""
    rotates_part: bool = False
    """A part of each head may be rotated."""
    slides: bool | None = False
    """``sliding_window`` holds without ``use_sliding_window`` or ``layer_types``; None: llama.cpp
    computes it.
    """
    stated: Mapping[str, str] = field(default_factory=dict)
    """Settings that the file states, and `GGUFWriter`'s method for each."""
    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Settings that must have one of these values; an absent one has the first."""
    objection: Callable[[Mapping[str, Any]], str | None] | None = None
    """Return why llama.cpp does not compute a model with other settings of its config, or None."""


def _gemma2_objection(config: Mapping[str, Any]) -> str | None:
    scalar, size = config.get("query_pre_attn_scalar", 256), config.get("head_dim", 256)
    if scalar != size or config.get("num_hidden_layers") == _LAYERS_OF_27B:
        return f"query_pre_attn_scalar is {scalar}, but llama.cpp computes it as head_dim, {size}"
    kinds = config.get("layer_types") or ()
    expected = ("sliding_attention", "full_attention")
    if any(kind != expected[layer % 2] for layer, kind in enumerate(kinds)):
        return "layer_types do not alternate"
    return None


def _smollm3_objection(config: Mapping[str, Any]) -> str | None:
    rotated = config.get("no_rope_layers") or ()
    if any(bool(one) == (layer % 4 == 3) for layer, one in enumerate(rotated)):
        return "no_rope_layers are others than each fourth, which llama.cpp computes"
    return None


FAMILIES: Mapping[str, Family] = {
    "gpt2": Family(
        architecture="GPT2",
        layout="conv1d",
        epsilon="layer_norm_epsilon",
        is_rms=False,
        rotates=False,
        fixed={
            "activation_function": _TANH_GELU,
            "scale_attn_weights": (True,),
            "scale_attn_by_inverse_layer_idx": (False,),
            "add_cross_attention": (False,),
        },
    ),
    "llama": Family(
        architecture="LLAMA",
        layout="rotary pairs",
        epsilon="rms_norm_eps",
        fixed={"hidden_act": _SILU},
    ),
    "mistral": Family(
        architecture="LLAMA",
        layout="rotary pairs",
        epsilon="rms_norm_eps",
        slides=True,
        fixed={"hidden_act": _SILU},
    ),
    "qwen2": Family(
        architecture="QWEN2",
        epsilon="rms_norm_eps",
        fixed={"hidden_act": _SILU},
    ),
    "qwen3": Family(
        architecture="QWEN3",
        epsilon="rms_norm_eps",
        fixed={"hidden_act": _SILU, "attention_bias": (False,)},
    ),
    "smollm3": Family(
        architecture="SMOLLM3",
        layout="rotary pairs",
        epsilon="rms_norm_eps",
        fixed={"hidden_act": _SILU, "no_rope_layer_interval": (4,)},
        objection=_smollm3_objection,
    ),
    "olmo2": Family(
        architecture="OLMO2",
        epsilon="rms_norm_eps",
        fixed={"hidden_act": _SILU, "attention_bias": (False,)},
    ),
    "gemma": Family(
        architecture="GEMMA",
        layout="norms from one",
        epsilon="rms_norm_eps",
        fixed={
            "hidden_act": _TANH_GELU,
            "hidden_activation": (None, *_TANH_GELU),
            "attention_bias": (False,),
            "tie_word_embeddings": (True,),
            "use_bidirectional_attention": (None, False),
        },
    ),
    "gemma2": Family(
        architecture="GEMMA2",
        layout="norms from one",
        epsilon="rms_norm_eps",
        slides=None,
        stated={
            "sliding_window": "add_sliding_window",
            "attn_logit_softcapping": "add_attn_logit_softcapping",
            "final_logit_softcapping": "add_final_logit_softcapping",
        },
        fixed={
            "hidden_activation": _TANH_GELU,
            "attention_bias": (False,),
            "tie_word_embeddings": (True,),
            "use_bidirectional_attention": (None, False),
        },
        objection=_gemma2_objection,
    ),
    "phi": Family(
        architecture="PHI2",
        epsilon="layer_norm_eps",
        is_rms=False,
        rotates_part=True,
        fixed={"hidden_act": _TANH_GELU, "qk_layernorm": (False,)},
    ),
    "phi3": Family(
        architecture="PHI3",
        epsilon="rms_norm_eps",
        slides=True,
        rotates_part=True,
        fixed={"hidden_act": _SILU},
    ),
    "starcoder2": Family(
        architecture="STARCODER2",
        epsilon="norm_epsilon",
        is_rms=False,
        slides=True,
        fixed={"hidden_act": _TANH_GELU, "use_bias": (True,)},
    ),
    "stablelm": Family(
        architecture="STABLELM",
        epsilon="layer_norm_eps",
        is_rms=False,
        rotates_part=True,
        stated={"use_parallel_residual": "add_parallel_residual"},
        fixed={"hidden_act": _SILU, "qk_layernorm": (False,)},
    ),
    "granite": Family(
        architecture="GRANITE",
        layout="rotary pairs",
        epsilon="rms_norm_eps",
        stated={
            "attention_multiplier": "add_attention_scale",
            "embedding_multiplier": "add_embedding_scale",
            "residual_multiplier": "add_residual_scale",
            "logits_scaling": "add_logit_scale",
        },
        fixed={"hidden_act": _SILU},
    ),
}


def objection(config: Mapping[str, Any]) -> str | None:
    """Return why llama.cpp does not compute a model of a family like transformers, or None."""
    family = FAMILIES[str(config.get("model_type"))]
    for name, allowed in family.fixed.items():
        if (value := config.get(name, allowed[0])) not in allowed:
            wanted = " or ".join(map(str, allowed))
            return f"{name} is {value}, but llama.cpp computes {wanted}"
    if family.objection is not None and (reason := family.objection(config)):
        return reason
    return rope_objection(config, allows_part=family.rotates_part) if family.rotates else None


def tie_of(config: Mapping[str, Any]) -> float:
    """Return which difference of two logits llama.cpp's rounding may decide."""
    settings = FAMILIES[str(config["model_type"])].fixed.values()
    return _GELU_TIE if any(_TANH_GELU[0] in allowed for allowed in settings) else TIE


def window_of(config: Mapping[str, Any]) -> int | None:
    """Return the number of tokens that a layer attends to at most; None without such a limit.

    llama.cpp attends to all of them, which is the same up to that number.
    """
    family, window = FAMILIES[config["model_type"]], config.get("sliding_window")
    if family.slides is None:
        return None
    slides = config.get("use_sliding_window", family.slides) or (
        "sliding_attention" in (config.get("layer_types") or ())
    )
    return int(window) if window and slides else None
