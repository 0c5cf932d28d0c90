"""Tokenizer, model and dialogue."""

from __future__ import annotations

from transformers import AutoTokenizer

from tests.docs.effects.entry import effect
from tests.docs.effects.observed import gap
from tests.docs.effects.workshop import ADAPTED, BATCH, ONE_STEP, PRETRAINED, STEPS, VALIDATION

RARE = "駅"
"""A character that the training data has once."""


@effect("tokenizer.kind", "unigram", "bpe", seen_in="tokenizer.json of a checkpoint")
def _(unigram, bpe):
    """The tokenizer is a SentencePiece model of this type."""
    assert unigram.json(0, "tokenizer.json")["model"]["type"] == "Unigram"
    assert bpe.json(0, "tokenizer.json")["model"]["type"] == "BPE"


@effect("tokenizer.vocab_size", 580, 600, seen_in="tokenizer.json and embeddings of a checkpoint")
def _(small, large):
    """The tokenizer has this number of pieces, and the model an embedding for each."""
    assert [len(run.json(0, "tokenizer.json")["model"]["vocab"]) for run in (small, large)] == [
        580,
        600,
    ]
    rows = [len(run.weights(0)["transformer.wte.weight"]) for run in (small, large)]
    assert rows[1] - rows[0] == 20


@effect(
    "tokenizer.character_coverage",
    1.0,
    0.98,
    seen_in="a rare character in the pieces of tokenizer.json",
)
def _(all_characters, most):
    """At 1 a rare character has its own piece; below, it is spelled in bytes."""
    assert all_characters.tokens(RARE) == [RARE]
    assert most.tokens(RARE) == [f"<0x{byte:02X}>" for byte in RARE.encode()]


@effect(
    "model.pretrained",
    "models/first",
    "models/second",
    seen_in="weights of checkpoint 0",
    given=PRETRAINED,
)
def _(first, second):
    """Training starts from the weights of this folder."""
    for run, name in ((first, "first"), (second, "second")):
        assert gap(run.weights(0), run.loaded(name)) == 0.0


@effect(
    "model.revision", None, "v2", seen_in="weights of checkpoint 0",
    given={**PRETRAINED, "model.pretrained": "acme/tiny"},
)  # fmt: skip
def _(main, v2):
    """Training starts from this branch, tag or commit of a hub id."""
    for run, name in ((main, "first"), (v2, "second")):
        assert gap(run.weights(0), run.loaded(name)) == 0.0


@effect("model.lora.rank", 2, 4, seen_in="adapter of checkpoint 0", given=PRETRAINED)
def _(two, four):
    """The updates of the matrices have this rank."""
    for run, rank in ((two, 2), (four, 4)):
        shapes = {name: tensor.shape for name, tensor in run.adapter(0).items()}
        assert {shape[0] for name, shape in shapes.items() if "lora_A" in name} == {rank}
        assert {shape[1] for name, shape in shapes.items() if "lora_B" in name} == {rank}


@effect("model.lora.alpha", 8, 64, seen_in="losses after step 1", given=ADAPTED)
def _(weak, strong):
    """The updates are scaled by alpha / rank; they are zero before step 1."""
    assert gap(weak.adapter(0), strong.adapter(0)) == 0.0
    assert weak.steps[0]["loss"] == strong.steps[0]["loss"]
    assert weak.steps[1]["loss"] != strong.steps[1]["loss"]


@effect(
    "model.lora.dropout", 0.0, 0.5, seen_in="losses, adapter_config.json of a checkpoint",
    given=ADAPTED,
)  # fmt: skip
def _(none, half):
    """Training drops this fraction of the inputs of the updates."""
    for run, rate in ((none, 0.0), (half, 0.5)):
        assert run.json(0, "adapter_config.json")["lora_dropout"] == rate
    assert gap(none.adapter(0), half.adapter(0)) == 0.0
    assert none.steps[1]["loss"] != half.steps[1]["loss"]


@effect(
    "model.lora.target_modules", "auto", ["c_attn"], seen_in="adapter of checkpoint 0",
    given=ADAPTED,
)  # fmt: skip
def _(auto, attention):
    """These matrices get an update; auto: all matrices of the blocks."""
    names = [
        {name.rpartition(".lora_")[0].rpartition(".")[2] for name in run.adapter(0)}
        for run in (auto, attention)
    ]
    assert names == [{"c_attn", "c_proj", "c_fc"}, {"c_attn"}]


@effect("model.scratch.layers", 1, 2, seen_in="weights of checkpoint 0")
def _(one, two):
    """A new model has this number of blocks."""
    for run, count in ((one, 1), (two, 2)):
        blocks = [name for name in run.weights(0) if name.startswith("transformer.h.")]
        assert len({name.split(".")[2] for name in blocks}) == count


@effect("model.scratch.width", 32, 48, seen_in="weights of checkpoint 0")
def _(narrow, wide):
    """The hidden state of a new model has this size."""
    assert [run.weights(0)["transformer.wte.weight"].shape[1] for run in (narrow, wide)] == [32, 48]


@effect(
    "model.scratch.heads",
    2,
    4,
    seen_in="loss of step 1, config.json of a checkpoint",
    given=ONE_STEP,
)
def _(two, four):
    """Attention has this number of heads, which changes the loss of the same weights."""
    assert [run.json(0, "config.json")["n_head"] for run in (two, four)] == [2, 4]
    assert gap(two.weights(0), four.weights(0)) == 0.0
    assert two.steps[0]["loss"] != four.steps[0]["loss"]


@effect("model.scratch.context", 128, 160, seen_in="weights of checkpoint 0")
def _(short, long):
    """A new model has this number of positions."""
    assert [len(run.weights(0)["transformer.wpe.weight"]) for run in (short, long)] == [128, 160]


@effect(
    "model.scratch.dropout",
    0.0,
    0.5,
    seen_in="loss of step 1, config.json of a checkpoint",
    given=ONE_STEP,
)
def _(none, half):
    """Training drops this fraction of embeddings and residuals, which changes the loss."""
    for run, rate in ((none, 0.0), (half, 0.5)):
        config = run.json(0, "config.json")
        assert [config[f"{place}_pdrop"] for place in ("embd", "resid", "attn")] == [
            rate,
            rate,
            0.0,
        ]
    assert gap(none.weights(0), half.weights(0)) == 0.0
    assert none.steps[0]["loss"] != half.steps[0]["loss"]


@effect(
    "model.scratch.attention_dropout",
    0.0,
    0.5,
    seen_in="loss of step 1, config.json of a checkpoint",
    given=ONE_STEP,
)
def _(none, half):
    """Training drops this fraction of the attention weights, which changes the loss."""
    for run, rate in ((none, 0.0), (half, 0.5)):
        config = run.json(0, "config.json")
        assert [config[f"{place}_pdrop"] for place in ("embd", "resid", "attn")] == [0.0, 0.0, rate]
    assert gap(none.weights(0), half.weights(0)) == 0.0
    assert none.steps[0]["loss"] != half.steps[0]["loss"]


@effect(
    "dialogue.template", "turns", "chatml", "convmodel",
    seen_in="the chat template of a checkpoint",
    given={"data.train": ["echo.jsonl"]},
)  # fmt: skip
def _(turns, chatml, convmodel):
    """Turns are rendered with the tokens of this template."""
    rendered = []
    for run in (turns, chatml, convmodel):
        tokenizer = AutoTokenizer.from_pretrained(run.file(0, ""))
        messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
        rendered.append(tokenizer.apply_chat_template(messages, tokenize=False))
    assert rendered == [
        "<|user|>Hi<|end|><|assistant|>Ho<|end|>",
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHo<|im_end|>\n",
        "<sep>Hi<sep>Ho<sep>",
    ]
    assert [run.started["template"] for run in (turns, chatml, convmodel)] == [
        "turns",
        "chatml",
        "convmodel",
    ]


@effect(
    "dialogue.template_options", {}, {"style": "brief"},
    seen_in="the chat template of a checkpoint",
    given={**PRETRAINED, "dialogue.template": "native", **ONE_STEP},
)  # fmt: skip
def _(none, brief):
    """The chat template gets these values for its own variables, and keeps them in the export."""
    for run, style in ((none, ""), (brief, "brief")):
        tokenizer = AutoTokenizer.from_pretrained(run.file(0, ""))
        source = tokenizer.chat_template + "{{ style }}"
        messages = [{"role": "user", "content": "Hi"}]
        rendered = tokenizer.apply_chat_template(messages, chat_template=source, tokenize=False)
        assert rendered == f"<|user|>Hi<|end|>{style}"
    assert brief.json(0, "dialogue.json")["template_options"] == {"style": "brief"}


@effect(
    "dialogue.train_on",
    "assistant",
    "all",
    "last",
    seen_in="targets in metrics.jsonl",
    given=VALIDATION,
)
def _(assistant, both, last):
    """Targets are the tokens of the assistant, of both sides, or of the last reply."""
    evaluated = [run.events("evaluation")[0]["num_targets"] for run in (last, assistant, both)]
    assert evaluated == sorted(set(evaluated))
    counts = [run.started["training"]["num_targets_by_role"] for run in (assistant, both, last)]
    assert counts[0]["user"] == counts[2]["user"] == 0 < counts[1]["user"]
    assert 0 < counts[2]["assistant"] < counts[0]["assistant"] == counts[1]["assistant"]


@effect("dialogue.user_turns_until", 0.0, 0.5, seen_in="targets of each step")
def _(never, half):
    """User turns are targets too during this fraction of the run, and not afterwards."""
    without, with_users = ([step["num_targets"] for step in run.steps] for run in (never, half))
    middle = STEPS // 2
    assert all(more > few for few, more in zip(without[:middle], with_users[:middle], strict=True))
    assert without[middle:] == with_users[middle:]


@effect(
    "dialogue.max_length", 32, 128, seen_in="examples in metrics.jsonl, tokens of each step",
    given={"data.train": ["long.jsonl"]},
)  # fmt: skip
def _(short, long):
    """A longer dialogue becomes several windows, each within this number of tokens."""
    cut, whole = (run.started["training"] for run in (short, long))
    assert cut["num_examples"] > cut["num_dialogues"] == 3
    assert whole["num_examples"] == 3
    assert max(step["num_tokens"] for step in short.steps) <= 32 * BATCH
    assert max(step["num_tokens"] for step in long.steps) > 32 * BATCH


@effect(
    "dialogue.long_turns", "refuse", "split", "drop",
    seen_in="the refusal, dialogues and examples in metrics.jsonl",
    given={"data.train": ["echo.jsonl", "story.jsonl"], "dialogue.max_length": 48},
)  # fmt: skip
def _(refuse, split, drop):
    """A dialogue with a turn that fits no window is refused, split into windows, or left out."""
    assert refuse.result.code == 3
    assert "does not fit into dialogue.max_length 48" in refuse.result.err
    cut, rest = (run.started["training"] for run in (split, drop))
    assert (cut["num_dialogues"], cut["num_split"], cut["num_left_out"]) == (6, 3, 0)
    assert (rest["num_dialogues"], rest["num_split"], rest["num_left_out"]) == (3, 0, 3)
    assert cut["num_examples"] > 6 > 3 == rest["num_examples"]
