"""Opening of a model for replies: from a run directory, a checkpoint, an export, or a hub id."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from convo_cli.config.schema import GenerationSettings, PretrainedModel
from convo_cli.errors import ModelError
from convo_cli.events import Emit, Notice
from convo_cli.model.adapters.adapter_files import holds_adapter
from convo_cli.model.causal import require_causal
from convo_cli.model.context import context_length
from convo_cli.model.create import require_rows
from convo_cli.model.decoding.generator import Generator
from convo_cli.model.device import choose_device, move
from convo_cli.model.loading import load_model
from convo_cli.runs.loaded import find_loaded
from convo_cli.runs.model_folder import DIALOGUE_FILE
from convo_cli.runs.opening import load_from
from convo_cli.runs.selection import Which
from convo_cli.storage.sealed import MANIFEST_FILE
from convo_cli.text.contract import load_encoder
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.templates.template import make_template
from convo_cli.text.tokenizers.hub import local_folder
from convo_cli.text.tokenizers.pretrained import load_pretrained_tokenizer

_DEFAULT_WINDOW = 2048  # for a foreign model that states no limit of its own


def open_generator(
    source: str,
    *,
    device: str,
    emit: Emit,
    which: Which | None = None,
    base: str | None = None,
) -> Generator:
    """Load a model with the encoder that it was trained with.

    ``which`` selects the checkpoint of a run, as in `convo_cli.runs.opening.open_checkpoint`.
    ``base`` is the place of an adapter's base, if it was moved.

    A folder without dialogue.json is a foreign Hugging Face model and uses its own chat template.
    """
    where = choose_device(device)
    folder = local_folder(source)
    generator = load_from(
        folder, emit, lambda opened: _load(opened.path, source, emit, base), which
    )
    if loaded := generator.loaded:
        emit(Notice(loaded.describe(is_selected=loaded.path != folder)))
    move(generator.model, where)
    return generator


def _load(folder: Path, source: str, emit: Emit, base: str | None) -> Generator:
    place = place_of_base(folder, base, emit)
    loaded = find_loaded(folder)  # now, because training may delete the checkpoint later
    if (folder / DIALOGUE_FILE).exists():
        if not (folder / MANIFEST_FILE).exists():
            message = (
                f"{folder}: no {MANIFEST_FILE}, so convo cannot check that the files are those of "
                "the export"
            )
            emit(Notice(message, is_warning=True))
        encoder = load_encoder(folder)
        model = load_model(str(folder), base=place)
    else:
        model = load_model(str(folder))
        tokenizer = load_pretrained_tokenizer(str(folder))
        if not tokenizer.chat_template:
            raise ModelError(
                f"{source}: no {DIALOGUE_FILE} and no chat template, so convo does not know how to "
                "write a prompt for this model",
                hint="train it on dialogues first: set model.pretrained in a config for "
                "`convo train`",
            )
        window = context_length(model) or _DEFAULT_WINDOW
        template = make_template("native", tokenizer, agreement="none")
        encoder = DialogueEncoder(tokenizer, template, max_length=window)
        require_rows(model, encoder, source)
        require_causal(model, encoder)
    return Generator(model, encoder, folder, loaded)


def place_of_base(folder: Path, base: str | None, emit: Emit) -> PretrainedModel | None:
    """Return the place that `--base` gives, or emit a notice if the folder holds no adapter."""
    if base is None:
        return None
    if holds_adapter(folder):
        return PretrainedModel(base, None)
    emit(Notice(f"--base has no effect: {folder} holds a whole model"))
    return None


def generation_defaults(generator: Generator) -> GenerationSettings:
    """Return the sampling settings of the model's folder, or convo's own for those it lacks."""
    stated = generator.model.generation_config
    values = {
        "max_new_tokens": stated.max_new_tokens,
        "temperature": 0.0 if stated.do_sample is False else stated.temperature,
        "top_k": stated.top_k,
        "top_p": stated.top_p,
        "min_p": stated.min_p,
        "repetition_penalty": stated.repetition_penalty,
    }
    settings = GenerationSettings()
    for key, value in values.items():
        if value is not None:
            try:
                settings = GenerationSettings.model_validate({**settings.model_dump(), key: value})
            except ValidationError:
                continue
    return settings
