"""What benchmarks of training share: dialogues as tokens, a GPT-2 of a stated size.

Dialogues are <bos> t0 <sep> t1 <sep> …, cut at the context, as every peer's driver makes them.
Nothing of convo is imported with this module, so a peer's own Python can use it too.
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
"""Where the dialogues are from unless the command line says otherwise: train.jsonl and
valid.jsonl.
"""

PAD, BOS, EOS, SEP = 0, 1, 2, 3
SIZES = {  # vocabulary, context, layers, width, heads
    "tiny": (8000, 256, 2, 128, 2),
    "mini": (8000, 512, 6, 384, 6),
    "gpt2": (50257, 512, 12, 768, 12),
    "1b": (50257, 1024, 24, 1792, 28),
}


def make_tokenizer(data: Path, path: Path) -> Path:
    """Train the byte-level BPE of 8,000 pieces that all sides share, unless it is there."""
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
    """The texts of each dialogue: a bare list a line, or one under "turns"."""
    with data.open(encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    return [line if isinstance(line, list) else line["turns"] for line in lines]


def encode(data: Path, tokenizer: Path, context: int) -> list[tuple[list[int], list[int]]]:
    """For each dialogue its ids and, for each of them, which turn it is from; -1 for <bos>."""
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
    """A random GPT-2, the same for the same seed."""
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
