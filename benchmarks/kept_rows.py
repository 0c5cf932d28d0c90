"""Compare kept and joined rows of a model with whole rows, on any device and in any precision.

    python benchmarks/kept_rows.py exports/convo --device cuda --dtype bf16

Prints one JSON object: whether rows may be extended and joined, the largest difference of logits in
standard deviations, and how many greedy replies of a conversation differ from those without a kept
row. Rounding may choose another of two tokens with almost equal logits.
"""

from __future__ import annotations

import argparse
import json
import random
from typing import Any

import torch

TURNS = 12


def main() -> None:
    """Parse the command line, compare and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", choices=("fp32", "bf16", "fp16"), default="fp32")
    arguments = parser.parse_args()

    from convo_cli.events import ignore
    from convo_cli.model.open import open_generator

    generator = open_generator(arguments.model, device=arguments.device, emit=ignore)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[arguments.dtype]
    generator.model.to(dtype)
    print(json.dumps({**compared_rows(generator), **compared_replies(generator)}))


@torch.inference_mode()
def compared_rows(generator: Any) -> dict[str, Any]:
    """Join, step, take and extend rows, and compare all logits with those of whole rows."""
    draws = random.Random(0)
    window = generator.encoder.max_length
    ids = [[draws.randrange(5, 200) for _ in range(window)] for _ in range(3)]
    lengths = [window // 4, window // 2, window // 3]
    with generator.answering() as forward:
        batch, _ = forward.passes.start([ids[0][: lengths[0]]], 0)
        found: list[tuple[int, int, torch.Tensor]] = []
        for number in (1, 2):
            more, _ = forward.passes.start([ids[number][: lengths[number]]], 0)
            batch.join(more)
            for _ in range(8):
                present = range(number + 1)
                logits = batch.step([ids[row][lengths[row]] for row in present])
                for row in present:
                    lengths[row] += 1
                    found.append((row, lengths[row], logits[row]))
        alone = batch.take(1)
        alone.cut(window // 4)
        logits = alone.extend(ids[1][window // 4 : window - 1])
        found.append((1, window - 1, logits[0]))
        errors = []
        for row, length, logits in found:
            expected = whole_logits(generator, ids[row][:length])
            errors.append(float((logits.float() - expected).abs().max() / expected.std()))
        return {
            "passes": type(forward.passes).__name__,
            "can_extend": forward.can_extend,
            "can_join": forward.can_join,
            "largest_difference": max(errors),
        }


def whole_logits(generator: Any, ids: list[int]) -> torch.Tensor:  # (V,)
    """Return the logits that transformers computes for the token after a whole row."""
    row = torch.tensor([ids], device=generator.model.device)
    logits: torch.Tensor = generator.model(row, use_cache=False).logits[0, -1].float()
    return logits


def compared_replies(generator: Any) -> dict[str, Any]:
    """Answer a conversation with a kept row, and every prompt again without one."""
    from convo_cli.config.schema import GenerationSettings
    from convo_cli.data.dialogue import Turn

    settings = GenerationSettings(temperature=0.0, max_new_tokens=16)
    history, kept, num_reused = [], [], 0
    for number in range(TURNS):
        history.append(Turn("user", f"Hello, this is message {number}. How are you?"))
        reply = generator.stream(history, settings)
        num_reused += reply.trace.num_reused
        kept.append((list(history), reply.ids))
        history.append(Turn("assistant", reply.text.strip() or "Yes"))
    num_differ = 0
    for past, ids in kept:
        generator.drop_kept_row()
        num_differ += generator.stream(past, settings).ids != ids
    return {"replies": TURNS, "replies_that_differ": num_differ, "tokens_reused": num_reused}


if __name__ == "__main__":
    main()
