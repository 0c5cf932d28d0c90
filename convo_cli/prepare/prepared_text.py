"""Encoder of a new run: a tokenizer, loaded or trained, with the tokens of the template."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from convo_cli.config.schema import PretrainedModel
from convo_cli.data.dialogue import Turn
from convo_cli.data.unchanged import read_unchanged
from convo_cli.errors import CheckpointError
from convo_cli.events import Notice, begin
from convo_cli.prepare.inputs import Inputs
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.readback import reloadable
from convo_cli.text.templates.pieces import NO_TURN, Template
from convo_cli.text.templates.template import make_template
from convo_cli.text.tokenizers.hub import local_folder
from convo_cli.text.tokenizers.pretrained import load_tokenizer
from convo_cli.text.tokenizers.trained import (
    SPIECE_FILE,
    add_special_tokens,
    from_sentencepiece,
    keep_special_tokens_whole,
    train_sentencepiece,
)


@dataclass(frozen=True)
class PreparedText:
    """The encoder of a new run."""

    encoder: DialogueEncoder
    spiece: bytes | None
    """The SentencePiece model of its tokenizer, if it has one."""
    num_new_tokens: int


def build_encoder(inputs: Inputs) -> PreparedText:
    """Load the tokenizer of the pretrained model or train one, and add the template's tokens."""
    config, emit = inputs.config, inputs.emit
    spiece, origin = None, config.model.origin
    if isinstance(origin, PretrainedModel):
        begin("loading the tokenizer", emit)
        folder = local_folder(origin.source, origin.revision)
        tokenizer = load_tokenizer(folder, origin.source)
        keep_special_tokens_whole(tokenizer)
    else:
        spiece = _spiece(inputs)
        tokenizer = from_sentencepiece(spiece)
        if len(tokenizer) < (wanted := config.tokenizer.vocab_size):
            message = (
                f"the vocabulary has {len(tokenizer):,} tokens instead of {wanted:,} "
                "(tokenizer.vocab_size), because there is not enough training text for more"
            )
            emit(Notice(message))
    template = make_template(config.dialogue.template, tokenizer)
    if template.name != config.dialogue.template:
        has = "a" if template.name == "native" else "no"
        emit(Notice(f"template: {template.name}, because the tokenizer has {has} chat template"))
    new = add_special_tokens(tokenizer, template.special_tokens)
    if spiece is not None:
        tokenizer.bos_token = _first_token(template)
    if tokenizer.eos_token is None:
        tokenizer.eos_token = template.stop_tokens[-1]
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if isinstance(origin, PretrainedModel):
        saved_as = reloadable(tokenizer, folder, emit)
        if saved_as is not tokenizer:
            tokenizer, template = saved_as, make_template(template.name, saved_as)
    encoder = DialogueEncoder(tokenizer, template, max_length=config.dialogue.max_length)
    return PreparedText(encoder, spiece, len(new))


def _first_token(template: Template) -> str:
    """Return the token before every dialogue; without one the end token, as in GPT-2."""
    first = template.render((Turn("user", "a"), Turn("assistant", "b")))[0]
    return first.text if first.turn == NO_TURN else template.stop_tokens[0]


def _spiece(inputs: Inputs) -> bytes:
    """Train a SentencePiece model on the training dialogues, or open that of an earlier run."""
    config, files, cache = inputs.config, inputs.files.train, inputs.cache

    def make(folder: Path) -> None:
        begin("training the tokenizer", inputs.emit)
        (folder / SPIECE_FILE).write_bytes(train())

    def train() -> bytes:
        with read_unchanged(files, config.data) as dialogues:
            texts = (turn.text for dialogue in dialogues for turn in dialogue.turns)
            return train_sentencepiece(texts, config.tokenizer)

    key = {
        **inputs.reading(files),
        "packages": {"sentencepiece": version("sentencepiece")},
        "tokenizer": config.tokenizer.model_dump(),
    }

    def open_(folder: Path) -> bytes:
        with open(folder / SPIECE_FILE, "rb", opener=cache.opener) as file:
            spiece = file.read()
        try:
            size = len(from_sentencepiece(spiece))
        except Exception as error:  # the libraries raise half a dozen types
            raise CheckpointError(f"{folder / SPIECE_FILE}: {error}") from error
        if size > config.tokenizer.vocab_size:
            raise CheckpointError(
                f"{folder / SPIECE_FILE}: {size:,} tokens, more than tokenizer.vocab_size"
            )
        return spiece

    return cache.get("tokenizer", key, make, open_)[0]
