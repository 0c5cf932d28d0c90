"""Generation of replies, token by token, for chat, evaluation and the proof of an export."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError
from transformers.generation.configuration_utils import GenerationConfig
from transformers.generation.streamers import BaseStreamer

from convo_cli.config.schema import GenerationSettings
from convo_cli.data.dialogue import Turn
from convo_cli.errors import ModelError, first_line, is_out_of_memory
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.streaming import StreamDecoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from convo_cli.runs.loaded import LoadedCheckpoint

CANNOT_COMPUTE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""Exceptions of torch and transformers for a config whose numbers do not fit each other."""
_COLDEST = 1e-4
"""Lowest temperature for sampling: a lower one would overflow, so the likeliest token is chosen."""
_LARGEST = 2**31


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply of the model. ``stopped`` is False if it was cut at ``max_new_tokens``."""

    text: str
    ids: tuple[int, ...]
    stopped: bool
    num_dropped: int
    """Turns at the start of the history that did not fit."""


class Generator:
    """A model that answers histories rendered by its own encoder."""

    def __init__(
        self,
        model: PreTrainedModel,
        encoder: DialogueEncoder,
        folder: Path | None = None,
        loaded: LoadedCheckpoint | None = None,
    ) -> None:
        self.model = model
        self.encoder = encoder
        self.folder = folder
        """The folder from which the model was loaded, if any."""
        self.loaded = loaded
        """The checkpoint in that folder; None if it is not one of a run."""

    @property
    def longest_reply(self) -> int:
        """Return the most tokens of a reply: half of the window."""
        return max(1, self.encoder.max_length // 2)

    @torch.inference_mode()
    def reply(
        self,
        history: Sequence[Turn],
        settings: GenerationSettings,
        on_text: Callable[[str], None] = lambda text: None,
    ) -> Reply:
        """Answer the history; its first turns are dropped if they leave no room for the reply.

        A quarter of the window is room enough, or ``max_new_tokens`` if that is less. A reply may
        fill what the history leaves, up to ``max_new_tokens`` and `longest_reply`.

        ``on_text`` receives the text as it becomes certain, in pieces that join to ``Reply.text``.
        An exception of ``on_text`` ends the reply and is passed on. Raises DataError if the last
        message does not fit, ModelError if the model fails to compute a reply.
        """
        length = min(settings.max_new_tokens, self.longest_reply)
        reserved = min(length, max(1, self.encoder.max_length // 4))
        prompt = self.encoder.prompt(history, max_new_tokens=reserved)
        length = min(length, self.encoder.max_length - len(prompt.ids))
        streamer = _Streamer(self.encoder, on_text)
        was_training = self.model.training
        self.model.eval()
        try:
            generate: Any = self.model.generate
            input_ids = torch.tensor([prompt.ids], device=self.model.device)  # (1, T)
            generate(
                input_ids,
                attention_mask=torch.ones_like(input_ids),
                generation_config=self._generation_config(settings, length),
                streamer=streamer,
            )
        except CANNOT_COMPUTE as error:
            if streamer.was_ended or is_out_of_memory(error):
                raise
            raise ModelError(
                f"{type(self.model).__name__} cannot compute a reply ({first_line(error)})",
                hint="check the numbers in its config.json; if the scores are not finite, try "
                "--temperature 0",
            ) from error
        finally:
            self.model.train(was_training)
        ids = streamer.ids
        stopped = bool(ids) and ids[-1] in self.encoder.stop_ids
        return Reply(streamer.text, tuple(ids), stopped, prompt.num_dropped)

    def _generation_config(self, settings: GenerationSettings, length: int) -> GenerationConfig:
        # `generate` fills settings that are None from the model's own defaults, so every setting is
        # stated.
        is_sampling = settings.temperature >= _COLDEST
        return GenerationConfig(
            max_new_tokens=length,
            do_sample=is_sampling,
            temperature=settings.temperature if is_sampling else 1.0,
            top_k=settings.top_k if is_sampling else 50,
            top_p=settings.top_p if is_sampling else 1.0,
            min_p=settings.min_p if is_sampling else None,
            repetition_penalty=settings.repetition_penalty,
            eos_token_id=list(self.encoder.stop_ids),
            pad_token_id=self.encoder.pad_id,
        )


def read_generation_config(folder: Path) -> GenerationConfig:
    """Read the sampling settings of a model's folder that convo has too, if they are in range.

    Beams, caches, stop strings and all other settings of `generate` are ignored.
    """
    stated: object = None
    for name in ("generation_config.json", "config.json"):  # old models have only the second
        try:
            stated = json.loads((folder / name).read_bytes())
            break
        except FileNotFoundError:
            continue
        except (OSError, ValueError, RecursionError):
            break
    values = stated if isinstance(stated, dict) else {}
    kept = {
        key: values[key]
        for key in GenerationSettings.model_fields
        if _is_usable(key, values.get(key))
    }
    if isinstance(values.get("do_sample"), bool):
        kept["do_sample"] = values["do_sample"]
    return GenerationConfig(**kept)


def set_generation_defaults(
    model: PreTrainedModel, encoder: DialogueEncoder, settings: GenerationSettings
) -> None:
    """Make `generate` of the saved folder stop, pad and sample as configured, in any program."""
    is_sampling = settings.temperature >= _COLDEST
    sampling = settings.model_dump(include={"temperature", "top_p", "top_k"})
    if settings.min_p > 0:  # at 0, transformers warns whenever `generate` is greedy
        sampling["min_p"] = settings.min_p
    model.generation_config = GenerationConfig(
        max_new_tokens=settings.max_new_tokens,
        do_sample=is_sampling,
        repetition_penalty=settings.repetition_penalty,
        eos_token_id=list(encoder.stop_ids),
        pad_token_id=encoder.pad_id,
        **(sampling if is_sampling else {}),
    )
    # config.pad_token_id stays: RoBERTa counts positions from it, so another one would change the
    # saved model.


def _is_usable(key: str, value: object) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or value >= _LARGEST:
        return False
    try:
        GenerationSettings.model_validate({key: value})
    except ValidationError:
        return False
    return True


class _Streamer(BaseStreamer):
    """Receives the prompt and then each new id from `generate`, in the same thread."""

    def __init__(self, encoder: DialogueEncoder, on_text: Callable[[str], None]) -> None:
        self._decoder: StreamDecoder = encoder.stream()
        self._on_text = on_text
        self._has_seen_prompt = False
        self.ids: list[int] = []
        self.text = ""
        self.was_ended = False
        """True if an exception of ``on_text`` ended the reply."""

    def put(self, value: torch.Tensor) -> None:
        if not self._has_seen_prompt:
            self._has_seen_prompt = True
            return
        for token in value.flatten().tolist():
            self.ids.append(token)
            self._emit(self._decoder.push(token))

    def end(self) -> None:
        self._emit(self._decoder.finish())

    def _emit(self, text: str) -> None:
        if text:
            self.text += text
            try:
                self._on_text(text)
            except BaseException:
                self.was_ended = True
                raise
