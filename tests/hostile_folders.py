"""Model folders that attack the program that loads them: small changes to a tiny working model.

`FOLDERS` maps the name of an attack to a function that creates the folder. Tests and
benchmarks/bench_hostile_folders.py use them.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from tests.foreign import byte_pairs, fast, save_foreign, sentence_pieces

SIZE = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 128}
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' "
    "}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
MEGABYTE = "x" * 2**20


def harmless(folder: Path) -> Path:
    """Create a model that every command accepts."""
    tokenizer = fast(byte_pairs(), eos_token="<|endoftext|>")
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = TEMPLATE
    return save_foreign(folder, "gpt2", tokenizer, SIZE)


def change(file: Path, **values: Any) -> None:
    """Set keys of a JSON object in a file."""
    spec = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    file.write_text(json.dumps({**spec, **values}), encoding="utf-8")


def of_tokenizer(folder: Path, **values: Any) -> None:
    change(folder / "tokenizer.json", **values)


def of_model(folder: Path, **values: Any) -> None:
    spec = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    of_tokenizer(folder, model={**spec["model"], **values})


def of_config(folder: Path, **values: Any) -> None:
    change(folder / "config.json", **values)


def replace(old: str, new: str, kind: str = "String") -> dict[str, Any]:
    return {"type": "Replace", "pattern": {kind: old}, "content": new}


def normalizers(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": list(steps)}


def add_tokens(
    folder: Path, number: int, text: str = "<|added{}|>", *, special: bool = False
) -> None:
    spec = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    first = 1 + max(token["id"] for token in spec["added_tokens"])
    flags = {
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": special,
    }
    new = [{"id": first + k, "content": text.format(k), **flags} for k in range(number)]
    of_tokenizer(folder, added_tokens=[*spec["added_tokens"], *new])


def split(pattern: str) -> dict[str, Any]:
    step = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    return {"type": "Sequence", "pretokenizers": [step, byte_level]}


def write_weights(
    folder: Path, header: bytes, data: bytes = b"", *, length: int | None = None
) -> None:
    packed = struct.pack("<Q", len(header) if length is None else length)
    (folder / "model.safetensors").write_bytes(packed + header + data)


# Tokenizers


def replacement_chain(folder: Path) -> None:
    of_tokenizer(folder, normalizer=normalizers(*[replace("e", "ee")] * 40))


def replacement_by_expression(folder: Path) -> None:
    of_tokenizer(folder, normalizer=normalizers(*[replace("[ei]|", "ee", "Regex")] * 40))


def rare_megabyte(folder: Path) -> None:
    of_tokenizer(folder, normalizer=replace("\u4f60\u597d", MEGABYTE))


def prepended_megabyte(folder: Path) -> None:
    of_tokenizer(folder, normalizer={"type": "Prepend", "prepend": MEGABYTE})


def byte_level_chain(folder: Path) -> None:
    step = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    of_tokenizer(folder, pre_tokenizer={"type": "Sequence", "pretokenizers": [step] * 40})


def charsmap_megabyte(folder: Path) -> None:
    table = struct.pack("<I", 1024) + bytes(1024) + MEGABYTE.encode() + b"\0"
    of_tokenizer(
        folder,
        normalizer={
            "type": "Precompiled",
            "precompiled_charsmap": base64.b64encode(table).decode(),
        },
    )


def decoder_chain(folder: Path) -> None:
    steps = [
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    ]
    of_tokenizer(
        folder, decoder={"type": "Sequence", "decoders": [*steps, *[replace("e", "ee")] * 40]}
    )


def rare_decoder(folder: Path) -> None:
    steps = [
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    ]
    of_tokenizer(
        folder,
        decoder={"type": "Sequence", "decoders": [*steps, replace("\u4f60\u597d", MEGABYTE)]},
    )


def backtracking(folder: Path) -> None:
    of_tokenizer(folder, pre_tokenizer=split(r"(a|a|aa)+$|(\s|\s\s)+\d|(.|..)+\x00|[^\r\n]"))


def cubic_pattern(folder: Path) -> None:
    of_tokenizer(folder, pre_tokenizer=split(r"\w*\w*\w*\w*\w*!|."))


def pattern_of_gigabytes(folder: Path) -> None:
    of_tokenizer(folder, pre_tokenizer=split("((((a{1,1000}){1,1000}){1,1000}){1,1000}|.)"))


def nested_steps(folder: Path) -> None:
    file = folder / "tokenizer.json"
    of_tokenizer(folder, normalizer="HERE")
    deep = '{"type":"Sequence","normalizers":[' * 50_000 + "]}" * 50_000
    file.write_text(file.read_text(encoding="utf-8").replace('"HERE"', deep), encoding="utf-8")


def many_added_tokens(folder: Path) -> None:
    add_tokens(folder, 20_000)
    long = "".join(f"<|added{k}" for k in range(20_000))
    (folder / "chat_template.jinja").write_text(f"{long}{TEMPLATE}", encoding="utf-8")


def too_many_added_tokens(folder: Path) -> None:
    add_tokens(folder, 2**16 + 1)


def padding(folder: Path) -> None:
    fixed = {"strategy": {"Fixed": 10**9}, "direction": "Right", "pad_to_multiple_of": None}
    of_tokenizer(
        folder, padding={**fixed, "pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>"}
    )


def post_processor(folder: Path) -> None:
    one = {"SpecialToken": {"id": "x", "type_id": 0}}
    token = {"id": "x", "ids": [0] * 100_000, "tokens": ["<|endoftext|>"] * 100_000}
    single = [one] * 10_000 + [{"Sequence": {"id": "A", "type_id": 0}}]
    pair = [*single, {"Sequence": {"id": "B", "type_id": 1}}]
    of_tokenizer(
        folder,
        post_processor={
            "type": "TemplateProcessing",
            "single": single,
            "pair": pair,
            "special_tokens": {"x": token},
        },
    )


def affix_of_words(folder: Path) -> None:
    of_model(folder, continuing_subword_prefix=MEGABYTE * 8)


def token_of_megabytes(folder: Path) -> None:
    add_tokens(folder, 2, "{}" + MEGABYTE * 4)


def merges_from_vocabulary(folder: Path) -> None:
    """Files of a slow tokenizer, whose merges transformers computes from every cut of a word."""
    (folder / "tokenizer.json").unlink()
    words = {"a" * length: length for length in range(1, 6_000)}
    (folder / "vocab.json").write_text(json.dumps(words), encoding="utf-8")
    change(folder / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer")


def two_tokenizers(folder: Path) -> None:
    """RAG's class is loaded as a tokenizer, but lacks its methods."""
    of_config(folder, model_type="rag")
    file = folder / "tokenizer_config.json"
    spec = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(
        json.dumps({key: spec[key] for key in spec if key != "tokenizer_class"}), encoding="utf-8"
    )


def garbage_spiece(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(b"\x0a\xff\xff\xff\xff\x7f" + b"\0" * 1000)
    change(folder / "tokenizer_config.json", tokenizer_class="LlamaTokenizer")


# SentencePiece models


def of_spiece(folder: Path, content: bytes) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "spiece.model").write_bytes(content)
    change(folder / "tokenizer_config.json", tokenizer_class="BertGenerationTokenizer")


def spiece(**changes: Any) -> Any:
    """Return a small model as a message; ``changes`` are for the second piece."""
    from sentencepiece import sentencepiece_model_pb2

    untyped: Any = sentencepiece_model_pb2
    model = untyped.ModelProto()
    model.pieces.add(piece="<unk>", score=0.0, type=2)
    for number in range(400):
        model.pieces.add(piece=f"▁{number}", score=-1.0 - number)
    for key, value in changes.items():
        setattr(model.pieces[1], key, value)
    model.trainer_spec.unk_id = 0
    model.normalizer_spec.name = "identity"
    return model


def spiece_cut_off(folder: Path) -> None:
    of_spiece(folder, spiece().SerializeToString()[:3000])


def spiece_of_gigabytes(folder: Path) -> None:
    """Its first piece claims two gigabytes."""
    of_spiece(folder, b"\x0a\x80\x80\x80\x80\x08" + bytes(1000))


def random_spiece(folder: Path) -> None:
    of_spiece(folder, Random(0).randbytes(100_000))


def spiece_without_pieces(folder: Path) -> None:
    model = spiece()
    del model.pieces[:]
    of_spiece(folder, model.SerializeToString())


def spiece_with_nan(folder: Path) -> None:
    of_spiece(folder, spiece(score=float("nan")).SerializeToString())


def huge_piece(folder: Path) -> None:
    of_spiece(folder, spiece(piece=MEGABYTE * 8).SerializeToString())


def millions_of_pieces(folder: Path) -> None:
    of_spiece(folder, b"\x0a\x00" * 2**23 + spiece().SerializeToString())


def huge_spiece(folder: Path) -> None:
    """A file with a hole, so that it takes no disk space."""
    of_spiece(folder, b"")
    with (folder / "spiece.model").open("wb") as file:
        file.truncate(2**31)


def hostile_charsmap(folder: Path) -> None:
    """Every unit of its trie leads far outside of it."""
    model = spiece()
    trie = b"\xff\xff\xff\x7f" * 256
    model.normalizer_spec.precompiled_charsmap = struct.pack("<I", len(trie)) + trie + b"a\0"
    of_spiece(folder, model.SerializeToString())


def long_pieces(folder: Path) -> None:
    """Pieces of byte-pair encoding whose cuts are all pieces."""
    model = spiece()
    model.trainer_spec.model_type = 2
    for length in range(2, 4000):
        model.pieces.add(piece="a" * length, score=-500.0 - length)
    of_spiece(folder, model.SerializeToString())


# Templates


def endless_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(ENDLESS, encoding="utf-8")


def greedy_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ 'a' * 10 ** 10 }}", encoding="utf-8")


def token_with_a_loop(folder: Path) -> None:
    """A beginning-of-sequence token that ends convo's Jinja string and continues as a program."""
    token = "' }}" + ENDLESS + "{{ '"
    spec = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    index = 1 + max(one["id"] for one in spec["added_tokens"])
    flags = {
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
    piece = {"SpecialToken": {"id": token, "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    of_tokenizer(
        folder,
        added_tokens=[*spec["added_tokens"], {"id": index, "content": token, **flags}],
        post_processor={
            "type": "TemplateProcessing", "single": [piece, text],
            "pair": [piece, text, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {token: {"id": token, "ids": [index], "tokens": [token]}},
        },
    )  # fmt: skip
    change(folder / "tokenizer_config.json", bos_token=token)


# Configs


def huge_vocabulary(folder: Path) -> None:
    of_config(folder, vocab_size=20_000_000)


def absurd_vocabulary(folder: Path) -> None:
    of_config(folder, vocab_size=10**15)


def huge_positions(folder: Path) -> None:
    of_config(folder, n_positions=10**8)


def huge_inner(folder: Path) -> None:
    of_config(folder, n_inner=20_000_000)


def many_layers(folder: Path) -> None:
    of_config(folder, n_layer=10**9)


def many_labels(folder: Path) -> None:
    of_config(folder, num_labels=10**9)


def many_experts(folder: Path) -> None:
    size = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
    }
    of_config(folder, model_type="mixtral", **size, num_key_value_heads=1, num_local_experts=10**9)


def quadratic_buffers(folder: Path) -> None:
    size = {
        "hidden_size": 32,
        "num_layers": 1,
        "num_heads": 2,
        "attention_types": [[["global"], 1]],
    }
    of_config(folder, model_type="gpt_neo", **size, max_position_embeddings=300_000)


def nested_config(folder: Path) -> None:
    of_config(
        folder, model_type="gemma3", text_config={"num_hidden_layers": 10**9, "hidden_size": 8}
    )


def quantized(folder: Path) -> None:
    of_config(folder, quantization_config={"quant_method": "mxfp4"})


# Weights


def huge_header(folder: Path) -> None:
    write_weights(folder, b"{}", length=2**40)


def overlapping_tensors(folder: Path) -> None:
    tensors = {
        f"t{k}": {"dtype": "F32", "shape": [2**28], "data_offsets": [0, 2**30]} for k in range(64)
    }
    write_weights(folder, json.dumps(tensors).encode(), bytes(8))


def huge_index(folder: Path) -> None:
    names = {f"{number}{'x' * 100}": "model.safetensors" for number in range(300_000)}
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": names}), encoding="utf-8"
    )


def empty_tensors(folder: Path) -> None:
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    tensors = {f"transformer.h.{k}.ln_1.weight": empty for k in range(100_000)}
    write_weights(folder, json.dumps(tensors).encode())
    of_config(folder, n_layer=100_000)


def unexpected_tensors(folder: Path) -> None:
    tensors = {
        f"t.{k}": {"dtype": "U8", "shape": [1], "data_offsets": [k, k + 1]} for k in range(200_000)
    }
    write_weights(folder, json.dumps(tensors).encode(), bytes(len(tensors)))


_ATTACKS: tuple[Callable[[Path], None], ...] = (
    replacement_chain, replacement_by_expression, rare_megabyte, prepended_megabyte,
    byte_level_chain, charsmap_megabyte, decoder_chain, rare_decoder, backtracking, cubic_pattern,
    pattern_of_gigabytes, nested_steps, many_added_tokens, too_many_added_tokens, padding,
    post_processor, affix_of_words, token_of_megabytes, merges_from_vocabulary, two_tokenizers,
    garbage_spiece,
    spiece_cut_off, spiece_of_gigabytes, random_spiece, spiece_without_pieces, spiece_with_nan,
    huge_piece, millions_of_pieces, huge_spiece, hostile_charsmap, long_pieces,
    endless_template, greedy_template, token_with_a_loop,
    huge_vocabulary, absurd_vocabulary, huge_positions, huge_inner, many_layers, many_labels,
    many_experts, quadratic_buffers, nested_config, quantized,
    huge_header, huge_index, overlapping_tensors, empty_tensors, unexpected_tensors,
)  # fmt: skip
HARMLESS = frozenset({"many_added_tokens", "padding", "token_with_a_loop", "pattern_of_gigabytes"})
"""Attacks that are made harmless, so that the model loads and works."""


def _make(attack: Callable[[Path], None], folder: Path) -> Path:
    harmless(folder)
    attack(folder)
    return folder


FOLDERS: dict[str, Callable[[Path], Path]] = {
    attack.__name__: partial(_make, attack) for attack in _ATTACKS
}
"""Functions that create the folder of each attack."""
__all__ = ["FOLDERS", "HARMLESS", "harmless", "sentence_pieces"]
