"""Encoders with tokenizers of each kind."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tests.gguf_models import encoder_of, spiece_tokenizer
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
    return {
        "byte-level": encoder_of(byte_level()),
        "bpe": encoder_of(spiece_tokenizer("bpe", texts())),
        "unigram": encoder_of(spiece_tokenizer("unigram", texts())),
    }
