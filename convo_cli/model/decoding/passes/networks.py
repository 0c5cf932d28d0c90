"""Networks of model families for `FastForward`: GPT-2, and Llama with its relatives.

Shapes: B rows, T tokens, N = B * T, E width, H heads, D width of a head, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import embedding, gelu, silu

from convo_cli.model.adapters.lora import weight_of
from convo_cli.model.decoding.passes.fast_rows import Network, Slots

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LLAMA_LIKE = {
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
}
_FIXED_ROTATIONS = {"default", "linear", "llama3", "yarn"}
"""Types of rotary positions whose frequencies do not depend on the length of the text."""


def network_for(model: PreTrainedModel, max_length: int) -> Network | None:
    """Return a network with the model's current weights, for rows of at most ``max_length`` tokens.

    None if the model belongs to no known family. The caller must verify that the logits are equal.
    """
    name = type(model).__name__
    if name == "GPT2LMHeadModel":
        return Gpt2Network(model, max_length)
    if name not in _LLAMA_LIKE:
        return None
    config: Any = model.config
    window = getattr(config, "sliding_window", None)
    if (window and window < max_length) or not has_fixed_rotations(config):
        return None
    return LlamaNetwork(model, max_length)


def has_fixed_rotations(config: Any) -> bool:
    """Return whether the rotary positions of a model, if it has any, do not depend on the length.

    Some models have one set of parameters for each type of layer.
    """
    parameters: Any = getattr(config, "rope_parameters", None) or {}
    sets = [parameters, *(one for one in parameters.values() if isinstance(one, dict))]
    return all(one.get("rope_type", "default") in _FIXED_ROTATIONS for one in sets)


class Gpt2Network:
    """GPT-2, whose matrices are (in, out) already: only the head is copied."""

    def __init__(self, model: Any, max_length: int) -> None:
        body, config = model.transformer, model.config
        self.max_length = max_length
        self.num_layers = config.n_layer
        self.num_heads = config.n_head
        self.head_width = config.n_embd // config.n_head
        self._embeddings = weight_of(body.wte), body.wpe.weight
        self._layers = [_Gpt2Layer(block) for block in body.h]
        self._norm = _layer_norm(body.ln_f)
        self._head = _transposed(model.lm_head)
        self._shape = (config.n_embd,)

    def hidden(self, ids: Tensor, positions: Tensor, rows: Slots) -> Tensor:
        """Read ids (B, T) at their positions (B, T)."""
        words, places = self._embeddings
        x = embedding(ids, words).add_(embedding(positions, places)).flatten(0, 1)  # (N, E)
        shape, is_one = self._shape, ids.shape[1] == 1
        split = (*ids.shape, 3, self.num_heads, self.head_width)
        one = (ids.shape[0], 3, self.num_heads, 1, self.head_width)
        for index, layer in enumerate(self._layers):
            h = torch.layer_norm(x, shape, *layer.norm_1)
            qkv = torch.addmm(layer.attention_bias, h, layer.attention)
            # (B, 3, H, T, D)
            qkv = qkv.view(one) if is_one else qkv.view(split).permute(0, 2, 3, 1, 4)
            rows.new_slots(index).copy_(qkv[:, 1:])
            found = rows.attend(index, qkv[:, 0], layer.scale)
            x.addmm_(found, layer.output).add_(layer.output_bias)
            h = torch.layer_norm(x, shape, *layer.norm_2)
            h = layer.activate(torch.addmm(layer.up_bias, h, layer.up))
            x.addmm_(h, layer.down).add_(layer.down_bias)
        return torch.layer_norm(x, shape, *self._norm)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits (N, V)."""
        return torch.mm(hidden, self._head)


class _Gpt2Layer:
    def __init__(self, block: Any) -> None:
        self.norm_1, self.norm_2 = _layer_norm(block.ln_1), _layer_norm(block.ln_2)
        self.attention, self.attention_bias = weight_of(block.attn.c_attn), block.attn.c_attn.bias
        self.output, self.output_bias = weight_of(block.attn.c_proj), block.attn.c_proj.bias
        self.up, self.up_bias = weight_of(block.mlp.c_fc), block.mlp.c_fc.bias
        self.down, self.down_bias = weight_of(block.mlp.c_proj), block.mlp.c_proj.bias
        self.scale = float(block.attn.scaling)
        is_tanh = block.attn.config.activation_function in ("gelu_new", "gelu_pytorch_tanh")
        self.activate = _tanh_gelu if is_tanh else block.mlp.act


def _tanh_gelu(x: Tensor) -> Tensor:
    return gelu(x, approximate="tanh")


class LlamaNetwork:
    """Llama, Mistral, Qwen2 and Qwen3: every matrix is copied."""

    def __init__(self, model: Any, max_length: int) -> None:
        body, config = model.model, model.config
        attention = body.layers[0].self_attn
        self.max_length = max_length
        self.num_layers = len(body.layers)
        self.num_heads = config.num_key_value_heads
        self.head_width = attention.head_dim
        self._num_queries = config.num_attention_heads
        self._embeddings = weight_of(body.embed_tokens)
        self._layers = [_LlamaLayer(layer) for layer in body.layers]
        self._norm = body.norm.weight, float(body.norm.variance_epsilon)
        self._head = _transposed(model.lm_head)
        self._shape = (config.hidden_size,)
        positions = torch.arange(max_length).unsqueeze(0)
        cosines, sines = body.rotary_emb(self._embeddings[:1], positions)  # (1, max_length, D)
        half = self.head_width // 2
        self._rotations = torch.complex(cosines[0, :, :half], sines[0, :, :half]).unsqueeze(1)

    def hidden(self, ids: Tensor, positions: Tensor, rows: Slots) -> Tensor:
        """Read ids (B, T) at their positions (B, T)."""
        x = embedding(ids, self._embeddings).flatten(0, 1)  # (N, E)
        rotations = self._rotations[positions.flatten()]  # (N, 1, D / 2)
        shape, num_rotated = self._shape, self._num_queries + self.num_heads
        heads = (len(x), num_rotated + self.num_heads, self.head_width)
        pairs = (len(x), num_rotated, self.head_width // 2, 2)
        batch = (*ids.shape, num_rotated, self.head_width)
        for index, layer in enumerate(self._layers):
            h = torch.rms_norm(x, shape, layer.norm_1, layer.epsilon)
            qkv = _apply(h, layer.attention, layer.attention_bias).view(heads)
            qk, values = qkv[:, :num_rotated], qkv[:, num_rotated:]  # (N, heads, D)
            if layer.head_norm is not None:
                scaled = torch.rms_norm(qk, (self.head_width,), None, layer.head_epsilon)
                qk = scaled.mul_(layer.head_norm)
            turned = torch.view_as_real(torch.view_as_complex(qk.reshape(pairs)).mul(rotations))
            qk = turned.view(batch).transpose(1, 2)  # (B, heads, T, D)
            slots = rows.new_slots(index)
            slots[:, 0] = qk[:, self._num_queries :]
            slots[:, 1] = values.unflatten(0, ids.shape).transpose(1, 2)
            found = rows.attend(index, qk[:, : self._num_queries], layer.scale)
            _add(x, found, layer.output, layer.output_bias)
            h = torch.rms_norm(x, shape, layer.norm_2, layer.epsilon)
            gate, up = _apply(h, layer.up, layer.up_bias).chunk(2, dim=1)
            _add(x, layer.activate(gate).mul_(up), layer.down, layer.down_bias)
        return torch.rms_norm(x, shape, *self._norm)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits (N, V)."""
        return torch.mm(hidden, self._head)


class _LlamaLayer:
    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.norm_1, self.norm_2 = (
            layer.input_layernorm.weight,
            layer.post_attention_layernorm.weight,
        )
        self.epsilon = float(layer.input_layernorm.variance_epsilon)
        self.scale = float(attention.scaling)
        width = attention.head_dim
        # A rotation turns the dimensions i and i + D / 2 of queries and keys. With these beside
        # each other it is one product of complex numbers; the order does not change attention.
        pairs = torch.arange(width).view(2, -1).t().flatten()
        query, key = attention.q_proj, attention.k_proj
        rows = [_reordered(weight_of(part), pairs) for part in (query, key)]
        self.attention = torch.cat([*rows, weight_of(attention.v_proj)]).t().contiguous()
        self.attention_bias = None
        if query.bias is not None:
            biases = [_reordered(part.bias, pairs) for part in (query, key)]
            self.attention_bias = torch.cat([*biases, attention.v_proj.bias])
        self.head_norm, self.head_epsilon = None, 0.0
        if hasattr(attention, "q_norm"):
            norms = attention.q_norm, attention.k_norm
            counts = [part.weight.shape[0] // width for part in (query, key)]
            self.head_norm = torch.cat(
                [
                    norm.weight[pairs].expand(count, -1)
                    for norm, count in zip(norms, counts, strict=True)
                ]
            )
            self.head_epsilon = float(attention.q_norm.variance_epsilon)
        self.output, self.output_bias = _transposed(attention.o_proj), attention.o_proj.bias
        gate, up = mlp.gate_proj, mlp.up_proj
        self.up = torch.cat([weight_of(gate), weight_of(up)]).t().contiguous()
        self.up_bias = None if gate.bias is None else torch.cat([gate.bias, up.bias])
        self.down, self.down_bias = _transposed(mlp.down_proj), mlp.down_proj.bias
        is_silu = attention.config.hidden_act in ("silu", "swish")
        self.activate = silu if is_silu else mlp.act_fn


def _reordered(weight: Tensor, pairs: Tensor) -> Tensor:
    """Return the rows of a projection with the dimensions of each head in another order."""
    heads = weight.view(-1, len(pairs), *weight.shape[1:])  # (H, D) or (H, D, E)
    return heads[:, pairs].flatten(0, 1)


def _transposed(linear: Any) -> Tensor:
    return weight_of(linear).t().contiguous()


def _layer_norm(norm: Any) -> tuple[Tensor, Tensor, float]:
    return norm.weight, norm.bias, norm.eps


def _apply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.mm(x, weight) if bias is None else torch.addmm(bias, x, weight)


def _add(x: Tensor, h: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    x.addmm_(h, weight)
    if bias is not None:
        x.add_(bias)
