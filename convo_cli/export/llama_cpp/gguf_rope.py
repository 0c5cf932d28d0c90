"""Rotary positions: the two forms in which a config states them, and llama.cpp's keys for them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFWriter
    from numpy.typing import NDArray

_KNOWN: Mapping[str, frozenset[str]] = {
    "default": frozenset(),
    "linear": frozenset({"factor"}),
    "llama3": frozenset(
        {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}
    ),
    "yarn": frozenset(
        {
            "factor",
            "attention_factor",
            "beta_fast",
            "beta_slow",
            "original_max_position_embeddings",
        }
    ),
}
"""The kinds of scaling that convo writes, and the settings of each."""
_ALWAYS = {"rope_theta", "rope_type", "type", "partial_rotary_factor"}
_THETA = 10_000.0
_LEAST = 1e-30
_NUMBERS = {"rope_theta", "partial_rotary_factor"}.union(*_KNOWN.values())


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary positions of a config."""

    theta: float
    kind: str
    settings: Mapping[str, Any]
    share: float
    """Of a head's dimensions, those that are rotated."""


def rope_of(config: Mapping[str, Any]) -> Rope:
    """Return the rotary positions of a config, of transformers 5 or before."""
    stated = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = stated.get("rope_theta", config.get("rope_theta"))
    share = stated.get("partial_rotary_factor", config.get("partial_rotary_factor"))
    return Rope(
        _THETA if theta is None else float(theta),
        str(stated.get("rope_type", stated.get("type", "default"))),
        {key: value for key, value in stated.items() if value is not None},
        1.0 if share is None else float(share),
    )


def rope_objection(config: Mapping[str, Any], *, allows_part: bool) -> str | None:
    """Return why llama.cpp cannot rotate like this config, or None."""
    stated = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if any(isinstance(value, Mapping) for value in stated.values()):
        return "its layers rotate positions in different ways"
    numbers = {name: config.get(name) for name in ("rope_theta", "partial_rotary_factor")}
    for name, value in {**numbers, **stated}.items():
        is_number = name in _NUMBERS and value is not None
        if is_number and not _is_sound(value):
            return f"{name} of its rotary positions is {str(value)[:40]}, not a positive number"
    rope = rope_of(config)
    if rope.kind not in _KNOWN:
        return f"its rotary positions are scaled by {rope.kind}, not by {', '.join(_KNOWN)}"
    unknown = sorted(rope.settings.keys() - _KNOWN[rope.kind] - _ALWAYS)
    if unknown:
        return f"its rotary positions have settings that convo cannot write: {', '.join(unknown)}"
    if rope.share != 1.0 and not allows_part:
        return f"it rotates only a part of each head: partial_rotary_factor is {rope.share}"
    needed = _KNOWN[rope.kind] if rope.kind == "llama3" else _KNOWN[rope.kind] & {"factor"}
    if missing := sorted(needed - rope.settings.keys()):
        return f"its rotary positions lack {', '.join(missing)}"
    if rope.kind == "llama3" and not (
        rope.settings["low_freq_factor"] < rope.settings["high_freq_factor"]
    ):
        return "low_freq_factor of its rotary positions is not below high_freq_factor"
    return None


def _is_sound(value: object) -> bool:
    """Return whether a value is a positive number that a 32-bit float can hold."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and _LEAST < value < 1 / _LEAST  # type: ignore[operator]


def write_rope(writer: GGUFWriter, rope: Rope, num_dimensions: int, context: int) -> None:
    """State the rotary positions; ``llama3`` has a tensor instead (`frequency_factors`)."""
    from gguf import RopeScalingType

    writer.add_rope_dimension_count(num_dimensions)
    writer.add_rope_freq_base(rope.theta)
    if rope.kind in ("default", "llama3"):
        return
    factor = float(rope.settings["factor"])
    writer.add_rope_scaling_factor(factor)
    if rope.kind == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        return
    writer.add_rope_scaling_type(RopeScalingType.YARN)
    original = rope.settings.get("original_max_position_embeddings", context)
    writer.add_rope_scaling_orig_ctx_len(int(original))
    writer.add_rope_scaling_yarn_beta_fast(float(rope.settings.get("beta_fast", 32)))
    writer.add_rope_scaling_yarn_beta_slow(float(rope.settings.get("beta_slow", 1)))
    if attention := rope.settings.get("attention_factor"):
        # llama.cpp multiplies this with the factor that the paper recommends.
        writer.add_rope_scaling_attn_factors(attention / (1 + 0.1 * math.log(factor)))


def frequency_factors(rope: Rope, num_dimensions: int) -> NDArray[np.float32] | None:
    """Return the divisor of each frequency by the rule of llama3; None for other kinds."""
    import numpy as np

    if rope.kind != "llama3":
        return None
    settings = {key: rope.settings[key] for key in _KNOWN["llama3"]}
    low, high = settings["low_freq_factor"], settings["high_freq_factor"]
    length = settings["original_max_position_embeddings"]
    exponents = np.arange(0, num_dimensions, 2, dtype=np.float64) / num_dimensions
    wavelengths = 2 * math.pi * rope.theta**exponents
    smooth = (length / wavelengths - low) / (high - low)
    smooth = np.clip(smooth, 0.0, 1.0)
    factors: NDArray[np.float32] = np.float32(1 / ((1 - smooth) / settings["factor"] + smooth))
    return factors
