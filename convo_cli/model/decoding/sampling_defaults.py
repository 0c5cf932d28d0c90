"""Sampling settings in a model's folder: read from a foreign one, written into a saved one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError
from transformers.generation.configuration_utils import GenerationConfig

from convo_cli.config.schema import GenerationSettings
from convo_cli.model.decoding.sampling import is_sampling
from convo_cli.text.encoder import DialogueEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LARGEST = 2**31


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
    """Set the model's generation config: `generate` stops, pads and samples as configured.

    It is saved with the model, so this holds in any program that loads the folder.
    """
    samples = is_sampling(settings)
    sampling = settings.model_dump(include={"temperature", "top_p", "top_k"})
    if settings.min_p > 0:  # at 0, transformers warns whenever `generate` is greedy
        sampling["min_p"] = settings.min_p
    model.generation_config = GenerationConfig(
        max_new_tokens=settings.max_new_tokens,
        do_sample=samples,
        repetition_penalty=settings.repetition_penalty,
        eos_token_id=list(encoder.stop_ids),
        pad_token_id=encoder.pad_id,
        **(sampling if samples else {}),
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
