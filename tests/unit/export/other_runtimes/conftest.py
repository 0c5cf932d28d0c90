"""Encoders with tokenizers of each kind."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from convo_cli.config.schema import TokenizerConfig
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.templates.template import make_template
from convo_cli.text.tokenizers.trained import (
    add_special_tokens,
    from_sentencepiece,
    train_sentencepiece,
)
from tests.slow_tokenizers import texts


def byte_level():
    """A tokenizer without unknown and first token, and with a token that has a line break."""
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        texts()[:200],
        trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False),
    )
    backend.add_tokens(["line\nbreak", "<|row 520|>"])
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False)


@pytest.fixture(scope="session")
def kinds():
    def encoder(tokenizer):
        template = make_template("turns", tokenizer)
        add_special_tokens(tokenizer, template.special_tokens)
        tokenizer.eos_token = tokenizer.pad_token = template.stop_tokens[-1]
        return DialogueEncoder(tokenizer, template, max_length=128)

    def sentencepiece(kind):
        config = TokenizerConfig(kind=kind, vocab_size=700)
        return from_sentencepiece(train_sentencepiece(texts(), config))

    return {
        "byte-level": encoder(byte_level()),
        "bpe": encoder(sentencepiece("bpe")),
        "unigram": encoder(sentencepiece("unigram")),
    }
