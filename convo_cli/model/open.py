"""From what the user names to a model that answers: a run directory, a checkpoint, an export, or a hub id."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from convo_cli.config.schema import GenerationConfig
from convo_cli.events import Report
from convo_cli.model.build import context_length, load_model
from convo_cli.model.device import choose_device, move
from convo_cli.model.generation import Generator
from convo_cli.runs.checkpoint import open_checkpoint
from convo_cli.text.contract import DIALOGUE_FILE, load_encoder
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.template import make_template
from convo_cli.text.tokenizer import load_pretrained_tokenizer

_DEFAULT_WINDOW = 2048  # for a foreign model that states no limit of its own


def open_generator(source: str, *, device: str, report: Report) -> Generator:
    """Load the model and the encoder it was trained with.

    A folder without dialogue.json is a foreign Hugging Face model and speaks its own chat template.
    """
    where = choose_device(device)
    folder = open_checkpoint(Path(source), report) if Path(source).exists() else None
    if folder is not None and (folder / DIALOGUE_FILE).is_file():
        encoder = load_encoder(folder)
        model = load_model(str(folder))
    else:
        name = source if folder is None else str(folder)
        model = load_model(name)
        tokenizer = load_pretrained_tokenizer(name)
        window = context_length(model) or _DEFAULT_WINDOW
        encoder = DialogueEncoder(tokenizer, make_template("native", tokenizer), max_length=window)
    move(model, where)
    return Generator(model, encoder)


def generation_defaults(generator: Generator) -> GenerationConfig:
    """How the model's own folder says replies are sampled; convo's own where it says nothing usable."""
    stated = generator.model.generation_config
    values = {
        "max_new_tokens": stated.max_new_tokens,
        "temperature": stated.temperature if stated.do_sample else 0.0,
        "top_k": stated.top_k,
        "top_p": stated.top_p,
        "min_p": stated.min_p,
        "repetition_penalty": stated.repetition_penalty,
    }
    settings = GenerationConfig()
    for key, value in values.items():
        if value is not None:
            try:
                settings = GenerationConfig.model_validate({**settings.model_dump(), key: value})
            except ValidationError:
                continue
    return settings
