"""Attention inside a pack: each example attends only to itself, without padding or a mask.

The examples of a pack follow each other in one row. transformers' `AttentionInterface` lets a
function replace the attention of a model; ours receives the lengths of the examples through the
model's keyword arguments. Without lengths, as in generation, it calls transformers' own
scaled-dot-product attention.

Shapes: B = 1 row, T tokens, H heads (keys and values may have fewer), D width of a head.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "convo_packed"


@dataclass(frozen=True)
class Segments:
    """Positions of the examples in a pack."""

    lengths: tuple[int, ...]
    longest: int
    """A Python number, like the lengths: reading it from a GPU would stall every layer."""
    boundaries: Tensor  # (N + 1,) int32: 0, the first length, the sum of the first two …

    def to(self, device: torch.device) -> Segments:
        """Return the same segments on a device."""
        return Segments(self.lengths, self.longest, self.boundaries.to(device))


def use_packed_attention(model: PreTrainedModel) -> str:
    """Give the model `packed_attention`, and return the name of the attention it replaces.

    It changes nothing without segments.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    before = attention_of(model)
    ALL_ATTENTION_FUNCTIONS.register(NAME, packed_attention)
    model.set_attn_implementation(NAME)
    return before


@contextmanager
def without_packed_attention(model: PreTrainedModel) -> Iterator[None]:
    """Give a model with `packed_attention` transformers' own attention for a while.

    transformers builds no mask for an attention that it does not know, so padding would be seen.
    """
    is_packed = attention_of(model) == NAME
    if is_packed:
        model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        if is_packed:
            model.set_attn_implementation(NAME)


def attention_of(model: PreTrainedModel) -> str:
    """Return the model's attention implementation, by transformers' name."""
    return str(getattr(model.config, "_attn_implementation", None) or "eager")


def why_not_packed(model: PreTrainedModel) -> str | None:
    """Return why the config of a model excludes packing; None if packing may be tried."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    if others := sorted(kinds - {"full_attention"}):
        return f"the model has {' and '.join(others)} layers"
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        return "the model has a sliding attention window"
    position_embedding = getattr(config, "position_embedding_type", "absolute")
    if getattr(config, "alibi", False) or position_embedding == "alibi":
        return "the model has ALiBi attention"
    if not getattr(type(model), "_supports_attention_backend", False):
        return f"transformers cannot replace the attention of {type(model).__name__}"
    return None


def kernel(device: torch.device, dtype: torch.dtype) -> str:
    """Return the name of the kernel for packed attention, for run.json."""
    return "varlen_attn" if _has_varlen(device, dtype) else "one example length at a time"


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,  # (1, H, T, D)
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    segments: Segments | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Compute causal attention within each segment: (1, T, H, D), as transformers expects."""
    if segments is None:  # a padded batch, or generation during training
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        output: Tensor = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )[0]
        return output, None
    # The kernel for variable lengths has no dropout.
    if dropout == 0.0 and _has_varlen(query.device, query.dtype):
        return _varlen(query, key, value, scaling, segments), None
    return _by_length(query, key, value, dropout, scaling, segments), None


# Without `disable`, torch.compile would compile again for the lengths of each step.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _by_length(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout: float,
    scaling: float | None,
    segments: Segments,
) -> Tensor:
    """Call attention once for each run of equal lengths.

    A mask over the row would cost four times as much on a CPU.
    """
    # The examples of a step are sorted by length, so equal lengths are neighbours.
    runs = [(length, len(list(group))) for length, group in groupby(segments.lengths)]
    sizes = [length * count for length, count in runs]
    outputs = []
    # `split` has one backward for all parts; slicing would create a gradient of the whole row for
    # each part.
    split = (x.split(sizes, dim=2) for x in (query, key, value))
    for (length, count), *parts in zip(runs, *split, strict=True):
        # (N, H, L, D)
        q, k, v = (part.unflatten(2, (count, length)).squeeze(0).transpose(0, 1) for part in parts)
        # Grouped-query attention, as in Llama: several heads of queries share one head of keys and
        # values.
        is_grouped = k.shape[1] != q.shape[1]
        output = scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, scale=scaling, is_causal=True, enable_gqa=is_grouped
        )
        outputs.append(output.transpose(1, 2).flatten(0, 1))  # (N * L, H, D)
    return torch.cat(outputs).unsqueeze(0)  # (1, T, H, D)


def _varlen(
    query: Tensor, key: Tensor, value: Tensor, scaling: float | None, segments: Segments
) -> Tensor:
    """Compute flash attention over segments of any lengths in one kernel; CUDA in 16 bits only."""
    from torch.nn.attention.varlen import varlen_attn

    # The kernel of torch 2.10 requires as many heads of keys as of queries, and the heads of a
    # token side by side.
    heads = query.shape[1]
    q, k, v = (
        x.repeat_interleave(heads // x.shape[1], dim=1)[0].transpose(0, 1).contiguous()  # (T, H, D)
        for x in (query, key, value)
    )
    # torch 2.10 has is_causal, 2.11 window_size.
    is_old = "is_causal" in inspect.signature(varlen_attn).parameters
    causal: dict[str, Any] = {"is_causal": True} if is_old else {"window_size": (-1, 0)}
    longest, boundaries = segments.longest, segments.boundaries
    output: Any = varlen_attn(
        q, k, v, boundaries, boundaries, longest, longest, scale=scaling, **causal
    )
    result: Tensor = output.unsqueeze(0)  # (1, T, H, D)
    return result


@lru_cache(maxsize=8)
def _has_varlen(device: torch.device, dtype: torch.dtype) -> bool:
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return False
    try:
        from torch.nn.attention import varlen  # noqa: F401
    except ImportError:
        return False
    # Flash attention needs an Ampere GPU (2020) or newer.
    return torch.cuda.get_device_capability(device) >= (8, 0)
