"""The proof that an exported folder, opened by plain transformers, answers as its checkpoint does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from convo_cli.config.schema import GenerationConfig
from convo_cli.data.dialogue import Turn, as_messages
from convo_cli.errors import CheckpointError
from convo_cli.model.build import load_model
from convo_cli.model.generation import Generator
from convo_cli.text.tokenizer import load_pretrained_tokenizer

_PROBES: tuple[tuple[Turn, ...], ...] = (
    (Turn("user", "Hello!"),),
    (Turn("user", "Hi, how are you?"), Turn("assistant", "Fine, thank you."), Turn("user", "What shall we do today?")),
    (Turn("user", "¿Qué tal? 안녕하세요 こんにちは 🙂"),),
)
_NUM_TOKENS = 24


@dataclass(frozen=True, slots=True)
class Receipt:
    """How much was compared; a receipt exists only where all of it was equal."""

    num_prompts: int
    num_tokens: int


def verify_export(folder: Path, original: Generator, probes: Sequence[Sequence[Turn]] = _PROBES) -> Receipt:
    """Compare prompts and greedy replies, id by id; CheckpointError with the first difference."""
    tokenizer = load_pretrained_tokenizer(str(folder))
    model: Any = load_model(str(folder)).eval()
    greedy = GenerationConfig(temperature=0.0, max_new_tokens=_NUM_TOKENS)
    num_tokens = 0
    for turns in probes:
        expected_prompt = original.encoder.prompt(turns, max_new_tokens=_NUM_TOKENS)
        if expected_prompt.num_dropped:
            continue
        prompt: Any = tokenizer.apply_chat_template(
            as_messages(turns), add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        ids = prompt["input_ids"][0].tolist()
        if ids != expected_prompt.ids:
            raise _difference("reads", turns, ids, expected_prompt.ids)
        with torch.inference_mode():
            output = model.generate(**prompt, do_sample=False, max_new_tokens=_NUM_TOKENS)
        answer = output[0, len(ids) :].tolist()
        expected = list(original.reply(turns, greedy).ids)
        if answer != expected:
            raise _difference("answers", turns, answer, expected)
        num_tokens += len(ids) + len(answer)
    return Receipt(len(probes), num_tokens)


def _difference(verb: str, turns: Sequence[Turn], actual: list[int], expected: list[int]) -> CheckpointError:
    return CheckpointError(
        f"the export {verb} {turns[-1].text!r} otherwise than its checkpoint: ids {actual[:8]}… instead of "
        f"{expected[:8]}…; nothing was written",
        hint="this is a defect of convo or of the model's transformers code: please report it",
    )
