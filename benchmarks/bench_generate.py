"""CPU seconds of greedy replies: convo's generator and transformers' `generate`.

    python benchmarks/bench_generate.py tiny mini models/smollm2

A model is a size of `work.SIZES` with random weights, or a folder. Both sides answer the same
histories with the same budget of new tokens, in one process, in turn: A B A B. Single replies are
asked one by one; "all turns" are the replies to every assistant turn of the dialogues, for which
convo reads each dialogue once and also returns the nll of the real replies. The table has the
smallest CPU seconds of a side, their ratio, and the replies whose ids differ (rounding may choose
another of two tokens with almost equal logits). Preparation of convo's copy of the weights is not
counted, but shown.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import work

if TYPE_CHECKING:
    from convo_cli.data.dialogue import Dialogue, Turn
    from convo_cli.model.decoding.generator import Generator

WARM_UP = 2  # dialogues


def main() -> None:
    """Measure each model and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", default=["tiny", "mini"])
    parser.add_argument("--data", type=Path, default=work.FOLDER / "train.jsonl")
    parser.add_argument("--dialogues", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=24, help="budget of each reply")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(f"{'model':24} {'replies':14} {'convo':>9} {'generate':>9} {'ratio':>6} {'differ':>9}")
    for name in arguments.models:
        measure(name, arguments)


def measure(name: str, arguments: argparse.Namespace) -> None:
    """Print the rows of one model."""
    from convo_cli.config.schema import GenerationSettings

    dialogues = read(arguments.data, arguments.dialogues)
    generator = open_model(name, arguments.data)
    settings = GenerationSettings(temperature=0.0, max_new_tokens=arguments.tokens)
    started = time.process_time()
    generator.replies([dialogues[0].turns[:1]], settings)
    prepared = time.process_time() - started

    last = [one.turns[: max(turns_of(one))] for one in dialogues]
    every = [one.turns[:turn] for one in dialogues for turn in turns_of(one)]
    sides: dict[str, tuple[Callable[[], list[list[int]]], Callable[[], list[list[int]]]]] = {
        "single": (
            lambda: [list(generator.replies([one], settings)[0].ids) for one in last],
            partial(by_generate, generator, last, arguments.tokens),
        ),
        "batched": (
            lambda: [list(one.ids) for one in generator.replies(last, settings)],
            partial(by_generate, generator, last, arguments.tokens),
        ),
    }
    if hasattr(generator, "all_replies"):
        sides["all turns"] = (
            lambda: all_turns(generator, dialogues, settings),
            partial(by_generate, generator, every, arguments.tokens),
        )
    for kind, (ours, theirs) in sides.items():
        seconds: list[list[float]] = [[], []]
        made: list[list[list[int]]] = [[], []]
        for _ in range(arguments.rounds):
            for side, run in enumerate((ours, theirs)):
                started = time.process_time()
                made[side] = run()
                seconds[side].append(time.process_time() - started)
        ours_best, theirs_best = map(min, seconds)
        num_differ = sum(one != other for one, other in zip(*made, strict=True))
        print(
            f"{name[-24:]:24} {kind:14} {ours_best:8.2f}s {theirs_best:8.2f}s "
            f"{theirs_best / ours_best:5.2f}x {num_differ:4} of {len(made[0])}",
            flush=True,
        )
    num_tokens = sum(map(len, made[0]))
    print(f"{'':24} prepared in {prepared:.2f}s; {num_tokens} tokens in the last row", flush=True)


def all_turns(generator: Any, dialogues: Sequence[Dialogue], settings: Any) -> list[list[int]]:
    """Return the ids of the replies to all assistant turns."""
    answered = generator.all_replies(dialogues, settings)
    return [list(reply.ids) for one in answered for reply in one.replies]


def by_generate(
    generator: Generator, histories: Sequence[Sequence[Turn]], budget: int
) -> list[list[int]]:
    """Answer one by one with transformers."""
    import torch

    model: Any = generator.model
    made = []
    with torch.inference_mode():
        for history in histories:
            row = torch.tensor([generator.encoder.prompt(history, max_new_tokens=budget).ids])
            output = model.generate(
                row,
                attention_mask=torch.ones_like(row),
                max_new_tokens=budget,
                do_sample=False,
                repetition_penalty=1.0,
                eos_token_id=list(generator.encoder.stop_ids),
                pad_token_id=generator.encoder.pad_id,
            )
            made.append(output[0, row.shape[1] :].tolist())
    return made


def turns_of(dialogue: Dialogue) -> list[int]:
    """Return the indices of the assistant turns that answer a turn."""
    return [k for k in range(1, len(dialogue.turns)) if dialogue.turns[k].is_reply]


def read(data: Path, count: int) -> list[Dialogue]:
    """Return the first dialogues that have a reply."""
    from convo_cli.config.schema import DataConfig
    from convo_cli.data.reader import read_dialogues

    dialogues = list(read_dialogues([str(data)], DataConfig(train=(str(data),))))
    return [one for one in dialogues if turns_of(one)][:count]


def open_model(name: str, data: Path) -> Generator:
    """Open a folder, or build a GPT-2 with random weights and a tokenizer for the data."""
    import torch

    from convo_cli.config.schema import ScratchConfig, TokenizerConfig
    from convo_cli.events import ignore
    from convo_cli.model.create import build_scratch_model
    from convo_cli.model.decoding.generator import Generator
    from convo_cli.model.open import open_generator
    from convo_cli.text.encoder import DialogueEncoder
    from convo_cli.text.templates.template import make_template
    from convo_cli.text.tokenizers.trained import (
        add_special_tokens,
        from_sentencepiece,
        train_sentencepiece,
    )

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if name not in work.SIZES:
        return open_generator(name, device="cpu", emit=ignore)
    vocab_size, context, layers, width, heads = work.SIZES[name]
    texts = [text for one in work.read(data)[:3000] for text in one]
    tokenizer = from_sentencepiece(
        train_sentencepiece(texts, TokenizerConfig(vocab_size=vocab_size))
    )
    template = make_template("turns", tokenizer)
    add_special_tokens(tokenizer, template.special_tokens)
    encoder = DialogueEncoder(tokenizer, template, max_length=context)
    size = ScratchConfig(layers=layers, width=width, heads=heads, context=context)
    model = build_scratch_model(size, encoder, seed=0).eval()  # dropout would slow down `generate`
    return Generator(model, encoder)


if __name__ == "__main__":
    main()
