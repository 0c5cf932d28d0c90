"""Tiny Hugging Face folders with random weights, as other tools leave them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

_TEXT = (
    "Hello there! What can I do for you? Tell me about tea. Tea is made from leaves, in 1 or 2 "
    "cups."
)
CORPUS = [_TEXT] * 3
SIZE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}


def byte_pairs() -> Tokenizer:
    """Return byte pairs like those of GPT-2; the last id is that of an ordinary word."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    end = ["<|endoftext|>"]
    backend.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=end, initial_alphabet=alphabet, show_progress=False
        ),
    )
    return backend


def sentence_pieces() -> Tokenizer:
    """Return byte pairs like those of the first Llama, with ▁ before words and byte tokens."""
    special = ["<unk>", "<s>", "</s>"]
    byte_pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    backend.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=[*special, *byte_pieces], show_progress=False
        ),
    )
    spec = json.loads(backend.to_str())
    spec["added_tokens"] = [token for token in spec["added_tokens"] if token["content"] in special]
    spec["pre_tokenizer"] = None
    backend = Tokenizer.from_str(json.dumps(spec))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    steps = [
        decoders.Replace("▁", " "),
        decoders.ByteFallback(),
        decoders.Fuse(),
        decoders.Strip(" ", 1, 0),
    ]
    backend.decoder = decoders.Sequence(steps)
    return backend


def fast(backend: Tokenizer, **named: Any) -> Any:
    """Wrap the backend as transformers does."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=backend, clean_up_tokenization_spaces=False, **named
    )


def save_foreign(
    folder: Path, kind: str, tokenizer: Any, size: dict[str, Any], **tokenizer_config: Any
) -> Path:
    """Save a model with its tokenizer; ``tokenizer_config`` adds to tokenizer_config.json."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind, vocab_size=len(tokenizer), bos_token_id=None, eos_token_id=None, **size
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **tokenizer_config}))
    return folder


def llama_legacy(folder: Path) -> Path:
    """Save a Llama whose tokenizer class loses ``legacy`` when it is saved."""
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = fast(sentence_pieces(), **named)
    return save_foreign(
        folder, "llama", tokenizer, SIZE, tokenizer_class="LlamaTokenizer", legacy=True
    )


def with_unused_id(folder: Path) -> Path:
    """Save a GPT-2 whose vocabulary lacks one id in its middle."""
    named = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    size = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128}
    save_foreign(folder, "gpt2", fast(byte_pairs(), **named), size)
    path = folder / "tokenizer.json"
    spec = json.loads(path.read_text(encoding="utf-8"))
    words, merges = spec["model"]["vocab"], spec["model"]["merges"]
    parts = {part for pair in merges for part in pair}
    gone = next(
        word for word, index in words.items() if 260 < index < len(words) - 1 and word not in parts
    )
    del words[gone]
    spec["model"]["merges"] = [pair for pair in merges if "".join(pair) != gone]
    path.write_text(json.dumps(spec), encoding="utf-8")
    return folder


def with_tokens(folder: Path, token: str) -> Path:
    """Save a GPT-2 whose tokenizer puts the token before every text and ends turns with it."""
    backend = byte_pairs()
    tokenizer = fast(backend, bos_token=token, eos_token=token)
    index = tokenizer.convert_tokens_to_ids(token)
    begin = {"id": "begin", "ids": [index], "tokens": [token]}
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=["begin", "$A"], special_tokens=[begin]
    )
    return save_foreign(
        folder, "gpt2", tokenizer, {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128}
    )
