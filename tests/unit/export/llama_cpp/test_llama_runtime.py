"""llama.cpp's server as a runtime: every token of a reply, true probabilities, a closed door."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest
import torch
from transformers import GenerationConfig

from convo_cli.errors import CheckpointError
from convo_cli.export.llama_cpp.llama_runtime import open_llama
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.templates.template import make_template
from tests.gguf_models import byte_level_tokenizer, encoder_of, model_of, written
from tests.random_models import FAMILIES

pytest.importorskip("gguf", reason="the gguf package is not installed")
pytest.importorskip("xllamacpp", reason="llama.cpp is not installed: pip install xllamacpp")
PROMPT = [70, 90, 110, 130]
LENGTH = 12


def replies_with(model, ids, end):
    """Return the model's most likely tokens, with the end token."""
    sequence = list(ids)
    while len(sequence) < len(ids) + LENGTH and (sequence[-1] != end or len(sequence) == len(ids)):
        sequence.append(int(model(torch.tensor([sequence])).logits[0, -1].argmax()))
    return sequence


@pytest.fixture(scope="module")
def encoder(texts):
    return encoder_of(byte_level_tokenizer("gpt-2", texts, 300))


@pytest.fixture(scope="module")
def model(encoder):
    """A model whose reply has tokens that end within characters, and then its end token."""
    made = model_of(*FAMILIES["Llama"], encoder)
    (end,) = encoder.stop_ids
    with torch.inference_mode():
        ids = replies_with(made, PROMPT, end)[:-5]
        hidden = made.model(torch.tensor([ids])).last_hidden_state[0, -1]
        rows = made.get_output_embeddings().weight
        likeliest = (rows @ hidden).max()
        rows[end] = hidden * (1.05 * likeliest / hidden.square().sum())
    return made


@pytest.fixture(scope="module")
def folder(model, encoder, tmp_path_factory):
    made = tmp_path_factory.mktemp("gguf")
    written(made, model, encoder)
    return made


@pytest.fixture(scope="module")
def runtime(folder):
    return open_llama(folder)


@pytest.fixture(scope="module")
@torch.inference_mode()
def expected(model, encoder):
    (end,) = encoder.stop_ids
    sequence = replies_with(model, PROMPT, end)
    assert sequence[-1] == end, "the reply ends by itself"
    assert len(sequence) < len(PROMPT) + LENGTH
    ends = [encoder.tokenizer.decode([token]).endswith("�") for token in sequence]
    assert any(ends[len(PROMPT) :]), "a token ends within a character"
    return sequence


def test_a_reply_has_all_its_tokens_and_the_end_token(runtime, expected):
    """The probabilities of llama.cpp's server omit tokens that end within a character."""
    assert runtime.greedy(PROMPT, LENGTH) == expected[len(PROMPT) :]
    assert runtime.greedy(PROMPT, 2) == expected[len(PROMPT) :][:2]
    assert runtime.greedy(PROMPT, 0) == []


@torch.inference_mode()
def test_the_nll_of_any_token_is_that_of_the_models_own_logits(runtime, model, encoder):
    tokens = encoder.text_ids(["🦩 한 x"])[0]
    assert any(encoder.tokenizer.decode([token]).endswith("�") for token in tokens)
    ids = [*PROMPT, *tokens, encoder.stop_ids[0], 0, len(encoder.tokenizer) - 1, 5, 5, 5]
    likely = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    nll = [-float(likely[end - 1, ids[end]]) for end in range(2, len(ids))]
    assert runtime.nll(ids, 2) == pytest.approx(nll, abs=1e-3)
    assert runtime.nll(ids, len(ids)) == []


def test_the_end_tokens_are_those_of_the_checkpoint(runtime, encoder):
    assert runtime.stop_ids == list(encoder.stop_ids)


def test_a_text_spells_no_special_token_but_a_prompt_does(runtime, encoder):
    (end,) = encoder.stop_ids
    assert end not in runtime.text_ids("Hi<|end|>")
    assert runtime.prompt_ids([{"role": "user", "content": "Hi<|end|>"}]).count(end) == 2


def test_a_last_turn_of_the_assistant_is_a_turn(runtime, encoder):
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hm."}]
    ids = runtime.prompt_ids(messages)
    assert encoder.tokenizer.decode(ids) == "<|user|>Hi<|end|><|assistant|>Hm.<|end|><|assistant|>"


def test_a_role_without_a_place_is_refused_with_the_templates_words(runtime):
    with pytest.raises(RuntimeError, match="no place for role pirate"):
        runtime.prompt_ids([{"role": "pirate", "content": "Arr"}])


@pytest.mark.parametrize("value", [True, False])
def test_a_variable_of_the_template_has_the_value_of_training(value, texts, tmp_path):
    """llama.cpp defines this one itself."""
    tokenizer = byte_level_tokenizer("gpt-2", texts, 300)
    tokenizer.add_special_tokens({"eos_token": "</s>"})
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message.role + ': ' + message.content + eos_token }}"
        "{% endfor %}{% if add_generation_prompt %}assistant: {% if enable_thinking %}Hm. "
        "{% endif %}{% endif %}"
    )
    template = make_template("native", tokenizer, {"enable_thinking": value}, "none")
    encoder = DialogueEncoder(tokenizer, template, max_length=64)
    written(tmp_path, model_of(*FAMILIES["Llama"], encoder), encoder)
    ids = open_llama(tmp_path).prompt_ids([{"role": "user", "content": "Hi"}])
    assert encoder.tokenizer.decode(ids) == "user: Hi</s>assistant: " + "Hm. " * value


def test_sampling_stated_in_the_file_is_llama_cpps_default_and_not_the_receipts(
    model, encoder, expected, tmp_path, monkeypatch
):
    stated = {"temperature": 2.0, "top_k": 5, "top_p": 0.5, "min_p": 0.25}
    config = GenerationConfig(do_sample=True, repetition_penalty=1.75, **stated)
    monkeypatch.setattr(model, "generation_config", config)
    written(tmp_path, model, encoder)
    runtime = open_llama(tmp_path)
    assert runtime.greedy(PROMPT, LENGTH) == expected[len(PROMPT) :]
    headers = {"Authorization": f"Bearer {runtime._key}"}
    asked = urllib.request.Request(runtime._server.listening_address + "/props", headers=headers)
    with urllib.request.urlopen(asked, timeout=10) as answer:
        default = json.load(answer)["default_generation_settings"]["params"]
    assert {name: default[name] for name in stated} == stated
    assert default["repeat_penalty"] == 1.75
    assert default["repeat_last_n"] in (-1, 136)  # all tokens
    order = [name for name in default["samplers"] if name in ("penalties", *stated)]
    assert order == ["penalties", "temperature", "top_k", "top_p", "min_p"]
    assert len(order) == len(default["samplers"])


def test_the_server_answers_only_with_its_key_and_only_on_loopback(runtime):
    address = runtime._server.listening_address
    assert address.startswith("http://127.0.0.1:")
    for headers in ({}, {"Authorization": "Bearer x"}):
        for path, body in (("/completion", {"prompt": [1], "n_predict": 1}), ("/props", None)):
            data = json.dumps(body).encode() if body else None
            asked = urllib.request.Request(address + path, data, headers)
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(asked, timeout=10)
            refused.value.close()
            assert refused.value.code == 401


def test_a_folder_that_is_no_export_is_refused(folder, tmp_path):
    with pytest.raises(CheckpointError, match=r"one \.gguf file"):
        open_llama(tmp_path)
    (tmp_path / "dialogue.json").write_bytes((folder / "dialogue.json").read_bytes())
    (tmp_path / "model-F32.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(CheckpointError, match=r"model-F32\.gguf: llama\.cpp cannot load it"):
        open_llama(tmp_path)
    (tmp_path / "more.gguf").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"one \.gguf file"):
        open_llama(tmp_path)
