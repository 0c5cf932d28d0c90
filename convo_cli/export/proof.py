"""Proof that an exported folder replies in plain transformers like its checkpoint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from convo_cli.data.dialogue import Turn
from convo_cli.errors import CheckpointError, DataError
from convo_cli.model.generation import Generator
from convo_cli.model.loading import load_model
from convo_cli.model.open import generation_defaults
from convo_cli.text.bounded.rendering import render_ids
from convo_cli.text.tokenizers.pretrained import load_pretrained_tokenizer
from convo_cli.wording import quoted

_PROBES: tuple[tuple[Turn, ...], ...] = (
    (Turn("user", "Hello!"),),
    (
        Turn("user", "Hi, how are you?"),
        Turn("assistant", "Fine, thank you."),
        Turn("user", "What shall we do today?"),
    ),
    (Turn("user", "¿Qué tal? 안녕하세요 こんにちは 🙂"),),
)
_NUM_TOKENS = 24


@dataclass(frozen=True, slots=True)
class Receipt:
    """Counts of the comparison; a receipt exists only if everything was equal."""

    num_prompts: int
    num_tokens: int


def verify_export(
    folder: Path, original: Generator, probes: Sequence[Sequence[Turn]] = _PROBES
) -> Receipt:
    """Compare prompts and greedy replies, id by id; CheckpointError names the first difference.

    Probes that do not fit the model's window are left out; at least one must fit.
    """
    tokenizer = load_pretrained_tokenizer(str(folder))
    model: Any = load_model(str(folder)).eval()
    stated = json.loads((folder / "generation_config.json").read_bytes())
    # All of the generation config, as other programs read it.
    model.generation_config = type(model.generation_config).from_dict(stated)
    length = min(_NUM_TOKENS, original.encoder.max_length // 4)
    # The folder's defaults, such as a repetition penalty, apply to its `generate`, so also here.
    settings = {"temperature": 0.0, "max_new_tokens": length}
    greedy = generation_defaults(original).model_copy(update=settings)
    num_prompts = num_tokens = 0
    for turns in probes:
        try:
            expected_prompt = original.encoder.prompt(turns, max_new_tokens=length)
        except DataError:
            continue
        if expected_prompt.num_dropped:
            continue
        try:
            ids = render_ids(tokenizer, str(tokenizer.chat_template or ""), turns, for_reply=True)
        except DataError as error:
            raise _difference("prompt", turns, [], expected_prompt.ids) from error
        if ids != expected_prompt.ids:
            raise _difference("prompt", turns, ids, expected_prompt.ids)
        with torch.inference_mode():
            prompt = torch.tensor([ids])  # (1, T)
            output = model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=False,
                max_new_tokens=length,
            )
        answer = output[0, len(ids) :].tolist()
        expected = list(original.reply(turns, greedy).ids)
        if answer != expected:
            raise _difference("reply", turns, answer, expected)
        num_prompts += 1
        num_tokens += len(ids) + len(answer)
    if num_prompts == 0:
        raise CheckpointError(
            "the export cannot be compared with its checkpoint: no test prompt fits into "
            f"{original.encoder.max_length} tokens",
            hint="train with a larger dialogue.max_length",
        )
    return Receipt(num_prompts, num_tokens)


def _difference(
    what: str, turns: Sequence[Turn], actual: list[int], expected: list[int]
) -> CheckpointError:
    return CheckpointError(
        f"nothing was exported: in plain transformers, the {what} for {quoted(turns[-1].text)} "
        f"differs from the checkpoint's (ids {actual[:8]}… instead of {expected[:8]}…)",
        hint="this is a defect of convo or of the model's transformers code: please report it",
    )
