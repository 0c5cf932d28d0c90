"""Models as other tools leave them: trained, exported and resumed, or refused before step 1."""

from __future__ import annotations

import json

import pytest

from tests.cases import quick_first
from tests.commands import settings
from tests.foreign import (
    SIZE,
    byte_pairs,
    fast,
    llama_legacy,
    save_foreign,
    with_tokens,
    with_unused_id,
)

PRETRAINED = settings(
    "name=new", "model.scratch=null", "model.pretrained=base", "training.max_steps=1",
    "training.warmup_steps=0", "data.validation=[]",
)  # fmt: skip


def splitting(folder):
    """A GPT-2 whose tokenizer splits special tokens, and whose config asks for attention maps."""
    size = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 128}
    tokenizer = fast(byte_pairs(), eos_token="<|endoftext|>")
    save_foreign(folder, "gpt2", tokenizer, size, split_special_tokens=True)
    config = folder / "config.json"
    config.write_text(
        json.dumps(
            {**json.loads(config.read_text()), "output_attentions": True, "return_dict": False}
        )
    )


@pytest.mark.parametrize("make", quick_first([llama_legacy, with_unused_id, splitting]))
def test_what_is_trained_can_be_exported_resumed_and_talked_to(work, convo, make):
    make(work / "base")
    assert convo("train", "config.yaml", "-q", *PRETRAINED) == (0, "runs/new\n", "")
    assert convo("export", "runs/new", "exports/new", "-q").code == 0
    assert convo("resume", "runs/new", "-q", *settings("training.max_steps=2")).code == 0
    assert convo("chat", "exports/new", "--temperature", "0", stdin=b"Hello there!\n").code == 0


def test_no_two_tokens_of_an_export_share_an_id_and_words_keep_theirs(work, convo):
    from transformers import AutoTokenizer

    folder = with_unused_id(work / "base")
    words = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    assert convo("train", "config.yaml", "-q", *PRETRAINED).code == 0
    assert convo("export", "runs/new", "exports/new", "-q").code == 0
    vocabulary = AutoTokenizer.from_pretrained(work / "exports/new").get_vocab()
    assert len(set(vocabulary.values())) == len(vocabulary)
    assert vocabulary.items() >= words.items()
    assert (
        json.loads((work / "exports/new/config.json").read_text())["vocab_size"]
        == max(vocabulary.values()) + 1
    )


@pytest.mark.parametrize("kind", quick_first(["bert", "roberta"]))
def test_an_encoder_is_refused_and_a_decoder_of_the_same_kind_is_trained(work, convo, kind):
    tokenizer = fast(byte_pairs(), eos_token="<|endoftext|>")
    size = {**SIZE, "max_position_embeddings": 160, "pad_token_id": 0}
    save_foreign(work / "base", kind, tokenizer, size)
    result = convo("train", "config.yaml", "-q", *PRETRAINED)
    assert (result.code, result.out) == (2, "")
    assert "is not a causal language model" in result.err
    assert "set is_decoder to true in its config.json" in result.err
    assert not (work / "runs/new").exists()
    path = work / "base/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "is_decoder": True}))
    assert convo("train", "config.yaml", "-q", *PRETRAINED).code == 0


def test_a_chat_template_of_tokens_that_the_model_does_not_know_is_refused(work, convo):
    tokenizer = fast(byte_pairs(), eos_token="<|endoftext|>")
    size = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 128}
    save_foreign(work / "base", "gpt2", tokenizer, size)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|turn|>"]})
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<|turn|>' + m['role'] + ' ' + m['content'] + '<|endoftext|>' "
        "}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|turn|>assistant ' }}{% endif %}"
    )
    tokenizer.save_pretrained(work / "base")
    result = convo("chat", "base", stdin=b"Hello\n")
    assert result.code == 2
    assert "its chat template writes <|turn|> (id " in result.err


LOOP = "' }}{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}{{ '"


@pytest.mark.parametrize("template", quick_first(["turns", "chatml", "cls-sep"]))
@pytest.mark.parametrize("token", ["<it's>", LOOP], ids=["quote", "loop"])
def test_a_token_of_any_name_works_from_training_to_chat(work, convo, template, token):
    with_tokens(work / "base", token)
    data = work / "train.jsonl"
    lines = data.read_text(encoding="utf-8").splitlines(keepends=True)
    # cls-sep has no place for a system turn.
    data.write_text("".join(line for line in lines if '"system"' not in line), encoding="utf-8")
    assert (
        convo(
            "train", "config.yaml", "-q", *PRETRAINED, *settings(f"dialogue.template={template}")
        ).code
        == 0
    )
    assert convo("export", "runs/new", "exports/new", "-q").code == 0
    assert convo("chat", "exports/new", "--temperature", "0", stdin=b"Hello there!\n").code == 0


HOSTILE_GENERATION = {
    "num_beams": 4, "dola_layers": "high", "stop_strings": ["a"],
    "suppress_tokens": list(range(200)), "forced_bos_token_id": 3,
    "cache_implementation": "nonsense", "watermarking_config": {"bias": 3},
    "prompt_lookup_num_tokens": 4, "max_time": 1e-9, "bad_words_ids": [[1]],
    "custom_generate": "somebody/code", "compile_config": {"a": 1}, "penalty_alpha": 0.5,
    "return_dict_in_generate": True, "guidance_scale": 2, "sequence_bias": {"a": 3},
    "num_return_sequences": 3, "temperature": "hot", "top_p": float("nan"), "top_k": [1],
    "max_new_tokens": 10**9, "eos_token_id": "a", "max_length": 1, "min_p": -1,
    "repetition_penalty": 10**400, "assistant_early_exit": 1, "use_cache": 0,
    "transformers_version": [], "do_sample": "maybe",
}  # fmt: skip


@pytest.fixture
def foreign(work):
    """An export without the files that convo adds."""
    folder = work / "exports/tiny"
    for name in ("MANIFEST.json", "dialogue.json"):
        (folder / name).unlink()
    return folder


@pytest.mark.parametrize("num_together", quick_first([len(HOSTILE_GENERATION), 1]))
def test_a_setting_that_convo_does_not_have_changes_no_reply(convo, foreign, num_together):
    said = convo("chat", "exports/tiny", "--temperature", "0", stdin=b"Hello there!\n")
    assert said.code == 0
    assert said.out.strip()
    names = list(HOSTILE_GENERATION)
    for start in range(0, len(names), num_together):
        keys = names[start : start + num_together]
        settings = {**{key: HOSTILE_GENERATION[key] for key in keys}, "max_new_tokens": 8}
        (foreign / "generation_config.json").write_text(json.dumps(settings))
        assert (
            convo("chat", "exports/tiny", "--temperature", "0", stdin=b"Hello there!\n").out
            == said.out
        ), keys


def test_only_settings_that_convo_has_reach_generate(work, convo, foreign):
    (foreign / "generation_config.json").write_text(json.dumps(HOSTILE_GENERATION))
    for command in (["chat", "exports/tiny"], ["evaluate", "exports/tiny", "valid.jsonl"]):
        assert convo(*command, "-q", stdin=b"Hello there!\n").code == 0
    assert (
        convo(
            "train", "config.yaml", "-q", *PRETRAINED, "--set", "model.pretrained=exports/tiny"
        ).code
        == 0
    )
    assert convo("export", "runs/new", "exports/new", "-q").code == 0
    own = {
        "do_sample", "eos_token_id", "max_new_tokens", "pad_token_id", "repetition_penalty",
        "temperature", "top_k", "top_p", "transformers_version",
    }  # fmt: skip
    for folder in ("runs/new/checkpoints/step-00000001", "exports/new"):
        assert json.loads((work / folder / "generation_config.json").read_text()).keys() == own


@pytest.mark.parametrize(
    "content", quick_first(["[", "[" * 5000, "", "[]", "7", "null", '"a"', "\x00"], 2)
)
def test_a_generation_config_that_is_none_says_nothing(work, convo, foreign, content):
    (foreign / "generation_config.json").write_text(content)
    result = convo("chat", "exports/tiny", stdin=b"Hello there!\n")
    assert result.code == (2 if content.startswith("[[") else 0), result


@pytest.mark.parametrize(
    "key", quick_first(["num_beams", "temperature", "repetition_penalty", "stop_strings"])
)
def test_generation_settings_in_config_json_are_read_in_the_same_way(work, convo, foreign, key):
    """As the first versions of transformers wrote them."""
    (foreign / "generation_config.json").unlink()
    path = foreign / "config.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text()), key: ["a"] if key == "stop_strings" else 4})
    )
    assert convo("chat", "exports/tiny", stdin=b"Hello there!\n").code == 0
    assert (
        convo(
            "train", "config.yaml", "-q", *PRETRAINED, "--set", "model.pretrained=exports/tiny"
        ).code
        == 0
    )


def test_a_temperature_close_to_zero_takes_the_likeliest_token(convo):
    greedy = convo("chat", "exports/tiny", "--temperature", "0", stdin=b"Hello there!\n")
    assert (
        convo("chat", "exports/tiny", "--temperature", "1e-40", stdin=b"Hello there!\n").out
        == greedy.out
    )
