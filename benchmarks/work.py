"""Shared parts of the training benchmarks: encoded dialogues and a GPT-2 of a given size.

Dialogues are <bos> t0 <sep> t1 <sep> …, cut at the context, as in the drivers of the peers. This
module does not import convo, so the Python of a peer can use it too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROOT = Path(__file__).resolve().parent.parent
DAILYDIALOG = ROOT.parent / "shared" / "data" / "dailydialog"
FOLDER = DAILYDIALOG if DAILYDIALOG.is_dir() else ROOT / "sample_data"
"""Default folder of train.jsonl and valid.jsonl."""

PAD, BOS, EOS, SEP = 0, 1, 2, 3
SIZES = {  # vocabulary, context, layers, width, heads
    "tiny": (8000, 256, 2, 128, 2),
    "mini": (8000, 512, 6, 384, 6),
    "gpt2": (50257, 512, 12, 768, 12),
    "1b": (50257, 1024, 24, 1792, 28),
}


def make_tokenizer(data: Path, path: Path) -> Path:
    """Train the byte-level BPE of 8,000 pieces that all share, unless it exists."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    if not path.exists():
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=8000,
            special_tokens=["<pad>", "<bos>", "<eos>", "<sep>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator((text for texts in read(data) for text in texts), trainer)
        tokenizer.save(str(path))
    return path


def read(data: Path) -> list[list[str]]:
    """Return the texts of each dialogue: each line is a list, or has one under "turns"."""
    with data.open(encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    return [line if isinstance(line, list) else line["turns"] for line in lines]


def encode(data: Path, tokenizer: Path, context: int) -> list[tuple[list[int], list[int]]]:
    """Return the ids of each dialogue and the turn of each id; the turn of <bos> is -1."""
    from tokenizers import Tokenizer

    dialogues = read(data)
    encoded = iter(
        Tokenizer.from_file(str(tokenizer)).encode_batch(
            [text for texts in dialogues for text in texts]
        )
    )
    rows = []
    for texts in dialogues:
        ids, turns = [BOS], [-1]
        for turn in range(len(texts)):
            tokens = [*next(encoded).ids, SEP]
            ids += tokens
            turns += [turn] * len(tokens)
        rows.append((ids[:context], turns[:context]))
    return rows


def make_model(
    shape: tuple[int, int, int, int, int], *, seed: int = 0, dropout: float = 0.0
) -> PreTrainedModel:
    """Return a GPT-2 with random weights that depend only on the seed."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    vocabulary, context, layers, width, heads = shape
    torch.manual_seed(seed)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocabulary, n_positions=context, n_embd=width, n_layer=layers, n_head=heads,
            bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD, use_cache=False,
            resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout,
        )
    )  # fmt: skip
