"""llama.cpp replies from a GGUF file like the model, and reads texts and prompts with its ids."""

from __future__ import annotations

import pytest
import torch

from convo_cli.data.dialogue import Turn
from convo_cli.export.llama_cpp import gguf_format
from convo_cli.text.tokenizers.probes import PROBES
from tests.gguf_models import (
    WORD_RULES,
    byte_level_tokenizer,
    encoder_of,
    model_of,
    written,
)
from tests.random_models import FAMILIES, ROPE

pytest.importorskip("gguf", reason="the gguf package is not installed")
pytest.importorskip("xllamacpp", reason="llama.cpp is not installed: pip install xllamacpp")
pytest.importorskip("convo_cli.export.llama_cpp.llama_runtime", reason="not merged yet")
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
YARN = {
    "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32,
    "beta_fast": 16.0, "beta_slow": 2.0, "attention_factor": 1.3,
}  # fmt: skip
MODELS = {
    "GPT-2": FAMILIES["GPT-2"],
    "Llama": ("Llama", {**ROPE, "rope_theta": 5e5}),
    "Llama with biases": ("Llama", {**ROPE, "attention_bias": True, "mlp_bias": True}),
    "Llama with wide heads": ("Llama", {**ROPE, "head_dim": 16}),
    "Llama with linear scaling": (
        "Llama",
        {**ROPE, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    ),
    "Llama with llama3 scaling": ("Llama", {**ROPE, "rope_scaling": LLAMA3}),
    "Llama with yarn": ("Llama", {**ROPE, "rope_scaling": YARN}),
    "Mistral": ("Mistral", {**ROPE, "sliding_window": 128}),
    "Qwen2": FAMILIES["Qwen2"],
}
LENGTH = 24


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


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("is_tied", [False, True], ids=["", "tied"])
def test_replies_are_the_models(name, is_tied, encoders, tmp_path):
    encoder = encoders["byte-level bpe"]
    model = model_of(*MODELS[name], encoder, rows=3)
    if is_tied:
        model.get_output_embeddings().weight = model.get_input_embeddings().weight
        model.config.tie_word_embeddings = True
    runtime = opened(tmp_path, model, encoder)
    generator = torch.Generator().manual_seed(0)
    for length in (9, 60):
        prompt = torch.randint(len(encoder.tokenizer), (length,), generator=generator).tolist()
        sequence, nll = greedy_and_nll(model, encoder, prompt)
        assert runtime.greedy(prompt, LENGTH) == sequence[length:]
        # llama.cpp computes GELU by a table of 16-bit values.
        bound = 2e-3 if name == "GPT-2" else 3e-4
        assert runtime.nll(sequence, length) == pytest.approx(nll, abs=bound)


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


@pytest.mark.parametrize("rules", [rules for rules in WORD_RULES if rules != "gpt-2"])
def test_texts_are_cut_into_the_tokenizers_words(rules, texts, tmp_path):
    encoder = encoder_of(byte_level_tokenizer(rules, texts))
    runtime = opened(tmp_path, model_of(*FAMILIES["GPT-2"], encoder), encoder)
    for text, ids in zip(PROBES, encoder.text_ids(PROBES), strict=True):
        assert runtime.text_ids(text) == ids, text
