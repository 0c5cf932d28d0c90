"""llama.cpp replies from a GGUF file like the model, and reads texts and prompts with its ids."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
import torch
import transformers
from tokenizers import Tokenizer, normalizers, pre_tokenizers

from convo_cli.data.dialogue import Turn
from convo_cli.errors import ModelError
from convo_cli.export.llama_cpp import gguf_format
from convo_cli.text.templates.pieces import NO_TURN, Piece
from convo_cli.text.tokenizers.probes import PROBES
from tests.gguf_models import (
    WORD_RULES,
    byte_level_tokenizer,
    encoder_of,
    model_of,
    spiece_tokenizer,
    written,
)
from tests.random_models import FAMILIES, ROPE

pytest.importorskip("gguf", reason="the gguf package is not installed")
pytest.importorskip("xllamacpp", reason="llama.cpp is not installed: pip install xllamacpp")
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
YARN = {
    "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32,
    "beta_fast": 16.0, "beta_slow": 2.0, "attention_factor": 1.3,
}  # fmt: skip
GEMMA = {**ROPE, "head_dim": 16, "sliding_window": 8, "query_pre_attn_scalar": 16}
GRANITE = {
    "embedding_multiplier": 12.0, "logits_scaling": 2.0, "residual_multiplier": 0.22,
    "attention_multiplier": 0.15,
}  # fmt: skip
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "GPT-2": FAMILIES["GPT-2"],
    "Llama": ("Llama", {**ROPE, "rope_theta": 5e5, "head_dim": 16, "attention_bias": True}),
    "Mistral": ("Mistral", {**ROPE, "sliding_window": 128}),
    "Qwen2": FAMILIES["Qwen2"],
}
MORE: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama with biases": ("Llama", {**ROPE, "attention_bias": True, "mlp_bias": True}),
    "Llama with linear scaling": (
        "Llama",
        {**ROPE, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    ),
    "Llama with llama3 scaling": ("Llama", {**ROPE, "rope_scaling": LLAMA3}),
    "Llama with yarn": ("Llama", {**ROPE, "rope_scaling": YARN}),
    "Qwen2 with yarn": ("Qwen2", {**ROPE, "rope_scaling": YARN}),
    "Qwen3": FAMILIES["Qwen3"],
    "SmolLM3": ("SmolLM3", {**ROPE, "num_hidden_layers": 5, "pad_token_id": 0}),
    "OLMo 2": ("Olmo2", ROPE),
    "Gemma": ("Gemma", {**ROPE, "head_dim": 16}),
    "Gemma 2": ("Gemma2", {**GEMMA, "num_hidden_layers": 3}),
    "Phi": ("Phi", {**ROPE, "num_key_value_heads": 4}),
    "Phi-3": ("Phi3", {**ROPE, "pad_token_id": 0}),
    "StarCoder 2": ("Starcoder2", {**ROPE, "sliding_window": None}),
    "StableLM": ("StableLm", {**ROPE, "use_qkv_bias": True}),
    "StableLM in parallel": ("StableLm", {**ROPE, "use_parallel_residual": True}),
    "Granite": ("Granite", {**ROPE, **GRANITE}),
}
TIED = {"Llama", "Qwen2", "Gemma", "Gemma 2"}
GELU = {"GPT-2", "Gemma", "Gemma 2", "Phi", "StarCoder 2"}
"""llama.cpp computes GELU by a table of 16-bit values."""
LENGTH = 16


def opened(folder, model, encoder, dtype="fp32"):
    written(folder, model, encoder, dtype)
    return gguf_format.open_runtime(folder, None)


@torch.inference_mode()
def greedy_and_nll(model, encoder, ids):
    sequence = list(ids)
    while len(sequence) < len(ids) + LENGTH:
        sequence.append(int(model(torch.tensor([sequence])).logits[0, -1].argmax()))
        if sequence[-1] in encoder.stop_ids:
            break
    likely = model(torch.tensor([sequence])).logits[0].log_softmax(-1)
    nll = [-float(likely[end - 1, sequence[end]]) for end in range(len(ids), len(sequence))]
    return sequence, nll


@pytest.mark.parametrize(
    "name", [*MODELS, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)]
)
def test_replies_are_the_models(name, encoders, tmp_path):
    encoder = encoders["byte-level bpe"]
    kind, options = (MODELS | MORE)[name]
    model = model_of(kind, options, encoder, rows=3)
    if name in TIED:
        model.get_output_embeddings().weight = model.get_input_embeddings().weight
        model.config.tie_word_embeddings = True
    runtime = opened(tmp_path, model, encoder)
    generator = torch.Generator().manual_seed(0)
    for length in (9, 60):
        prompt = torch.randint(len(encoder.tokenizer), (length,), generator=generator).tolist()
        sequence, nll = greedy_and_nll(model, encoder, prompt)
        assert runtime.greedy(prompt, LENGTH) == sequence[length:]
        assert runtime.nll(sequence[: length + 4], length) == pytest.approx(
            nll[:4], abs=5e-3 if name in GELU else 5e-4
        )


def test_every_family_is_opened_by_a_test():
    tested = {
        getattr(transformers, f"{kind}Config").model_type for kind, _ in (MODELS | MORE).values()
    }
    assert tested == gguf_format.about().architectures


@pytest.fixture(scope="module")
def runtimes(encoders, tmp_path_factory):
    return {
        kind: opened(
            tmp_path_factory.mktemp("gguf"), model_of(*FAMILIES["GPT-2"], encoder), encoder
        )
        for kind, encoder in encoders.items()
    }


@pytest.mark.parametrize("kind", ["byte-level bpe", "sentencepiece bpe"])
def test_texts_have_the_tokenizers_ids(kind, encoders, runtimes):
    for text, ids in zip(PROBES, encoders[kind].text_ids(PROBES), strict=True):
        assert runtimes[kind].text_ids(text) == ids, text


def test_unigram_texts_have_the_tokenizers_ids_but_for_the_mark_of_spaces(encoders, runtimes):
    texts = [text for text in PROBES if "▁" not in text]
    assert len(texts) == 160
    for text, ids in zip(texts, encoders["unigram"].text_ids(texts), strict=True):
        assert runtimes["unigram"].text_ids(text) == ids, text


@pytest.mark.parametrize("kind", ["byte-level bpe", "sentencepiece bpe", "unigram"])
def test_prompts_have_the_encoders_ids(kind, encoders, runtimes):
    turns = [Turn("system", "Sei kurz."), Turn("user", "Hello, 你好 🙂"), Turn("assistant", "Hi!")]
    turns.append(Turn("user", "what's  up?"))
    prompt = encoders[kind].prompt(turns, max_new_tokens=8)
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    assert runtimes[kind].prompt_ids(messages) == list(prompt.ids)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "bound"), [("fp16", 0.2), ("bf16", 1.0), ("q8_0", 2.0)])
def test_rounded_weights_reply_nearly_alike(dtype, bound, encoders, tmp_path):
    encoder = encoders["byte-level bpe"]
    model = model_of(*MODELS["Llama"], encoder)
    runtime = opened(tmp_path, model, encoder, dtype)
    sequence, nll = greedy_and_nll(model, encoder, list(range(30, 60)))
    assert runtime.nll(sequence, 30) == pytest.approx(nll, abs=bound)
    assert runtime.nll(sequence, 30) != pytest.approx(nll, abs=1e-4)


@pytest.mark.slow
def test_of_two_equally_likely_cuts_llama_cpp_takes_the_other(texts, tmp_path):
    tokenizer = spiece_tokenizer("unigram", texts)
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    spec["model"]["vocab"].append(["zz", -6.0])
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(spec))
    encoder = encoder_of(tokenizer)
    runtime = opened(tmp_path, model_of(*FAMILIES["GPT-2"], encoder), encoder)
    two, three = encoder.text_ids(["zz", "zzz"])
    assert runtime.text_ids("zz") == two
    assert runtime.text_ids("zzz") == three[::-1]


@pytest.mark.slow
@pytest.mark.parametrize("rules", [rules for rules in WORD_RULES if rules != "gpt-2"])
def test_texts_are_cut_into_the_tokenizers_words(rules, texts, tmp_path):
    encoder = encoder_of(byte_level_tokenizer(rules, [*texts, *PROBES], 1_500))
    runtime = opened(tmp_path, model_of(*FAMILIES["GPT-2"], encoder), encoder)
    for text, ids in zip(PROBES, encoder.text_ids(PROBES), strict=True):
        assert runtime.text_ids(text) == ids, text


@pytest.mark.slow
def test_a_space_before_each_text_is_read_too(texts, tmp_path):
    """As the tokenizers of Llama 2 and the first Mistral put it."""
    tokenizer = spiece_tokenizer("bpe", texts)
    backend = tokenizer.backend_tokenizer
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.pre_tokenizer = None
    encoder = encoder_of(tokenizer)
    runtime = opened(tmp_path, model_of(*FAMILIES["GPT-2"], encoder), encoder)
    for text, ids in zip(PROBES, encoder.text_ids(PROBES), strict=True):
        assert runtime.text_ids(text) == ids, text
    turns = [Turn("user", "Hello"), Turn("assistant", "Hi!"), Turn("user", "x")]
    prompt = encoder.prompt(turns, max_new_tokens=8)
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    assert runtime.prompt_ids(messages) == list(prompt.ids)


@pytest.mark.slow
def test_a_space_before_the_first_text_of_a_dialogue_needs_no_place_after_a_special_token(
    texts, tmp_path
):
    """As the tokenizers of Mistral and TinyLlama put it."""
    tokenizer = spiece_tokenizer("bpe", texts)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
        replacement="▁", prepend_scheme="first", split=False
    )
    encoder = encoder_of(tokenizer)
    template: Any = encoder.template
    model = model_of(*FAMILIES["GPT-2"], encoder)
    runtime = opened(tmp_path, model, encoder)
    turns = [Turn("user", "Hello"), Turn("assistant", "Hi!"), Turn("user", "x")]
    prompt = encoder.prompt(turns, max_new_tokens=8)
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    assert runtime.prompt_ids(messages) == list(prompt.ids)
    beginning = replace(template, start=(Piece("Chat: ", NO_TURN),))
    with (
        patch.object(encoder, "template", beginning),
        pytest.raises(ModelError, match="no space before the first text"),
    ):
        written(tmp_path, model, encoder)


@pytest.mark.slow
def test_texts_in_the_normal_form_are_read_alike_and_others_are_not(texts, tmp_path):
    tokenizer = byte_level_tokenizer("qwen2", texts)
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    encoder = encoder_of(tokenizer)
    runtime = opened(tmp_path, model_of(*FAMILIES["GPT-2"], encoder), encoder)
    for text, ids in zip(PROBES, encoder.text_ids(PROBES), strict=True):
        is_normal = unicodedata.is_normalized("NFC", text)
        assert (runtime.text_ids(text) == ids) is is_normal, text
