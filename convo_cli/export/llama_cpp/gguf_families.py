"""Families of models that llama.cpp computes like transformers, by the `model_type` of the config.

A family is a row here. A config with a setting that llama.cpp ignores or computes differently is
refused, because the export would reply like another model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from convo_cli.export.llama_cpp.gguf_rope import rope_objection

Layout = Literal["as stored", "conv1d", "rotary pairs"]
"""How the matrices differ from transformers': not at all; those of GPT-2's Conv1D are transposed;
the rows of queries and keys are ordered so that the two of each rotated pair are neighbours.
"""
OTHER_FORMAT = "export in another format"
"""The hint of refusals."""
_SILU = ("silu", "swish")
_TANH_GELU = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")


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
    """Positions are rotations of queries and keys; else they are learnt embeddings."""
    slides: bool = False
    """``sliding_window`` holds without ``use_sliding_window`` or ``layer_types``."""
    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Settings that must have one of these values; an absent one has the first."""


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
}


def objection(config: Mapping[str, Any]) -> str | None:
    """Return why llama.cpp does not compute a model of a family like transformers, or None."""
    family = FAMILIES[str(config.get("model_type"))]
    for name, allowed in family.fixed.items():
        if (value := config.get(name, allowed[0])) not in allowed:
            wanted = " or ".join(map(str, allowed))
            return f"{name} is {value}, but llama.cpp computes {wanted}"
    return rope_objection(config) if family.rotates else None


def window_of(config: Mapping[str, Any]) -> int | None:
    """Return the number of tokens that a layer attends to at most; None without such a limit.

    llama.cpp attends to all of them, which is the same up to that number.
    """
    family, window = FAMILIES[config["model_type"]], config.get("sliding_window")
    slides = config.get("use_sliding_window", family.slides) or (
        "sliding_attention" in (config.get("layer_types") or ())
    )
    return int(window) if window and slides else None
