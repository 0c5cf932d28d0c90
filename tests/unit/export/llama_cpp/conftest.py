"""Encoders of each kind, trained once."""

from __future__ import annotations

import pytest

from tests import gguf_models


@pytest.fixture(scope="session")
def texts(sample_dialogues):
    return [turn.text for dialogue in sample_dialogues for turn in dialogue.turns]


@pytest.fixture(scope="session")
def encoders(texts):
    return {
        "byte-level bpe": gguf_models.encoder_of(gguf_models.byte_level_tokenizer("gpt-2", texts)),
        "sentencepiece bpe": gguf_models.encoder_of(gguf_models.spiece_tokenizer("bpe", texts)),
        "unigram": gguf_models.encoder_of(gguf_models.spiece_tokenizer("unigram", texts)),
    }
