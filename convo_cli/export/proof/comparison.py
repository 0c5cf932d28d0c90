"""Proof that an exported folder replies in plain transformers like its checkpoint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from convo_cli.config.schema import GenerationSettings
from convo_cli.data.dialogue import Turn
from convo_cli.errors import CheckpointError, DataError
from convo_cli.model.decoding.generator import Generator
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
_DEFECT = "this is a defect of convo or of the model's transformers code: please report it"


@dataclass(frozen=True, slots=True)
class Counted:
    """Counts of a comparison; they exist only if everything was equal."""

    num_prompts: int
    num_tokens: int
    classes: tuple[str, ...] = ()
    """The classes of model and tokenizer that another process loaded."""


class OtherPromptError(CheckpointError):
    """The export reads other ids than the checkpoint: its tokenizer differs, or its template."""


class Prompt(NamedTuple):
    """A probe that fits the model's window, and its ids by the checkpoint's encoder."""

    turns: Sequence[Turn]
    ids: list[int]


class Comparison:
    """The prompts and greedy replies of a checkpoint, which its export must repeat."""

    def __init__(self, original: Generator, probes: Sequence[Sequence[Turn]] = _PROBES) -> None:
        self._original = original
        self.length = min(_NUM_TOKENS, original.encoder.max_length // 4)
        """Most tokens of a reply."""
        self.prompts = [prompt for turns in probes if (prompt := self._prompt(turns))]
        if not self.prompts:
            raise CheckpointError(
                "the export cannot be compared with its checkpoint: no test prompt fits into "
                f"{original.encoder.max_length} tokens",
                hint="train with a larger dialogue.max_length",
            )
        self._num_tokens = 0

    def require_prompt(self, prompt: Prompt, ids: Sequence[int]) -> None:
        """Raise OtherPromptError if the export reads other ids than the checkpoint."""
        if list(ids) != prompt.ids:
            error = _difference("prompt", prompt.turns, ids, prompt.ids)
            raise OtherPromptError(error.message, hint=error.hint)
        self._num_tokens += len(prompt.ids)

    def require_reply(self, prompt: Prompt, ids: Sequence[int]) -> None:
        """Raise CheckpointError if the export replies with other ids than the checkpoint."""
        settings = {"temperature": 0.0, "max_new_tokens": self.length}
        # The folder's defaults, such as a repetition penalty, apply to its `generate` too.
        greedy: GenerationSettings = generation_defaults(self._original).model_copy(update=settings)
        expected = list(self._original.replies([prompt.turns], greedy)[0].ids)
        if list(ids) != expected:
            raise _difference("reply", prompt.turns, ids, expected)
        self._num_tokens += len(expected)

    def receipt(self, classes: Sequence[str] = ()) -> Counted:
        """Return the receipt, after all prompts and replies were compared."""
        return Counted(len(self.prompts), self._num_tokens, tuple(classes))

    def _prompt(self, turns: Sequence[Turn]) -> Prompt | None:
        try:
            prompt = self._original.encoder.prompt(turns, max_new_tokens=self.length)
        except DataError:
            return None
        return None if prompt.num_dropped else Prompt(turns, list(prompt.ids))


def verify_export(
    folder: Path,
    original: Generator,
    probes: Sequence[Sequence[Turn]] = _PROBES,
    *,
    model: Any = None,
) -> Counted:
    """Compare prompts and greedy replies, id by id; CheckpointError names the first difference.

    Probes that do not fit the model's window are left out; at least one must fit.

    ``model`` is that of the folder, if another program than transformers loads it.
    """
    comparison = Comparison(original, probes)
    tokenizer = load_pretrained_tokenizer(str(folder))
    model = (model or load_model(str(folder))).eval()
    stated = json.loads((folder / "generation_config.json").read_bytes())
    # All of the generation config, as other programs read it.
    model.generation_config = type(model.generation_config).from_dict(stated)
    for prompt in comparison.prompts:
        template = str(tokenizer.chat_template or "")
        try:
            ids = render_ids(tokenizer, template, prompt.turns, for_reply=True)
        except DataError as error:
            raise _difference("prompt", prompt.turns, [], prompt.ids) from error
        comparison.require_prompt(prompt, ids)
        with torch.inference_mode():
            input_ids = torch.tensor([ids])  # (1, T)
            output = model.generate(
                input_ids,
                attention_mask=torch.ones_like(input_ids),
                do_sample=False,
                max_new_tokens=comparison.length,
            )
        comparison.require_reply(prompt, output[0, len(ids) :].tolist())
    return comparison.receipt()


def refused(difference: str) -> CheckpointError:
    """Return the error that an export does not equal its checkpoint."""
    return CheckpointError(f"nothing was exported: {difference}", hint=_DEFECT)


def _difference(
    what: str, turns: Sequence[Turn], actual: Sequence[int], expected: Sequence[int]
) -> CheckpointError:
    ids = f"ids {list(actual[:8])}… instead of {list(expected[:8])}…"
    return refused(
        f"in plain transformers, the {what} for {quoted(turns[-1].text)} differs from the "
        f"checkpoint's ({ids})"
    )
