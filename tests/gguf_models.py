"""Small tokenizers, encoders and models of the kinds that exports hold, and GGUF files of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from convo_cli.config.schema import TokenizerConfig
from convo_cli.export.format import Dtype
from convo_cli.export.llama_cpp import gguf_format
from convo_cli.export.source import Source
from convo_cli.model.decoding.generator import Generator
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.templates.template import make_template
from convo_cli.text.tokenizers.trained import (
    add_special_tokens,
    from_sentencepiece,
    train_sentencepiece,
)
from tests.random_models import build

_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?"
_WORDS = _CONTRACTIONS + r"\p{L}+|\p{N}"
_END = r"[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_REST = r"| ?[^\s\p{L}\p{N}]+" + _END
_DEEPSEEK = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"| ?[\p{P}\p{S}]+" + _END
)


def _split(*patterns: str) -> Any:
    steps = [pre_tokenizers.Split(Regex(one), "isolated", invert=False) for one in patterns]
    return pre_tokenizers.Sequence([*steps, _BYTES])


WORD_RULES: dict[str, tuple[Any, bool]] = {
    "gpt-2": (pre_tokenizers.ByteLevel(add_prefix_space=False), False),
    "smollm": (
        pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        ),
        False,
    ),
    "llama-bpe": (_split(_WORDS + "{1,3}" + _REST), True),
    "dbrx": (_split(_WORDS + "{1,3}" + _REST), False),
    "qwen2": (_split(_WORDS + _REST), False),
    "qwen35": (
        _split(_CONTRACTIONS + r"[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+" + _END),
        False,
    ),
    "deepseek-v3": (_split(r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", _DEEPSEEK), False),
}
"""Rules that cut words, by llama.cpp's names: the pre-tokenizer, and whether it ignores merges."""


def byte_level_tokenizer(rules: str, texts: Iterable[str], vocab_size: int = 700) -> Any:
    """Return a byte-level BPE tokenizer, trained on texts."""
    from transformers import PreTrainedTokenizerFast

    splitter, ignore_merges = WORD_RULES[rules]
    backend = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    backend.pre_tokenizer = splitter
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False)


def spiece_tokenizer(kind: Any, texts: Iterable[str], vocab_size: int = 700) -> Any:
    """Return convo's own tokenizer of a kind, trained on texts."""
    config = TokenizerConfig(kind=kind, vocab_size=vocab_size)
    return from_sentencepiece(train_sentencepiece(texts, config))


def encoder_of(tokenizer: Any, max_length: int = 128) -> DialogueEncoder:
    """Return an encoder with convo's template."""
    template = make_template("turns", tokenizer)
    add_special_tokens(tokenizer, template.special_tokens)
    tokenizer.eos_token = tokenizer.pad_token = template.stop_tokens[-1]
    return DialogueEncoder(tokenizer, template, max_length=max_length)


def model_of(kind: str, options: dict[str, Any], encoder: DialogueEncoder, rows: int = 0) -> Any:
    """Return a random model with a row for each token, and ``rows`` more."""
    model = build(kind, options, len(encoder.tokenizer) + rows)
    with torch.no_grad():  # biases and norms are zero and one after construction
        for weight in model.parameters():
            if weight.dim() == 1:
                weight += torch.randn_like(weight) * 0.1
    return model


def written(
    folder: Path, model: Any, encoder: DialogueEncoder, dtype: Dtype = "fp32", emit: Any = None
) -> Path:
    """Write the model's file into a folder, and return it."""
    source = Source(folder, (), Generator(model, encoder), None, None)
    gguf_format.write(source, folder, dtype, emit or (lambda event: None))
    return folder / gguf_format.file_name(dtype)


def tensors_of(file: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Return the values of every tensor of a file."""
    from gguf import GGUFReader
    from gguf.quants import dequantize

    return {
        one.name: dequantize(one.data, one.tensor_type).reshape(tuple(one.shape)[::-1])
        for one in GGUFReader(file).tensors
    }


def values_of(file: Path) -> dict[str, Any]:
    """Return the metadata of a file."""
    from gguf import GGUFReader

    return {name: field.contents() for name, field in GGUFReader(file).fields.items()}
