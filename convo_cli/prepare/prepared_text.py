"""Encoder of a new run: a tokenizer, loaded or trained, with the tokens of the template."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

import msgspec

from convo_cli.config.schema import PretrainedModel, RunConfig
from convo_cli.data.dialogue import Turn
from convo_cli.errors import CheckpointError, ModelError, UsageError
from convo_cli.events import Emit, Notice, begin
from convo_cli.prepare.inputs import Inputs
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.readback import reloadable
from convo_cli.text.spiece.agreement import require_same_ids
from convo_cli.text.spiece.piece_model import SPIECE_FILE, SpieceFile, read_spiece
from convo_cli.text.spiece.slow_tokenizer import find_slow_tokenizer
from convo_cli.text.templates.native_template import NativeTemplate
from convo_cli.text.templates.pieces import NO_TURN, Template
from convo_cli.text.templates.reply_modes import choose_native
from convo_cli.text.templates.template import chosen_name, make_template
from convo_cli.text.tokenizers.hub import local_folder
from convo_cli.text.tokenizers.pretrained import load_tokenizer
from convo_cli.text.tokenizers.text_sample import MAX_CHARACTERS, TextSample
from convo_cli.text.tokenizers.trained import (
    add_special_tokens,
    from_sentencepiece,
    keep_special_tokens_whole,
    train_on_sample,
)
from convo_cli.wording import counted

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SIZES_FILE = "sample.json"
_SAMPLE_VERSION = 2
"""Raised whenever `TextSample` draws other lines, so that no earlier tokenizer is reused."""
_PROVEN_TEXTS = 10_000
_PROVEN_CHARACTERS = 2**20


@dataclass(frozen=True)
class PreparedText:
    """The encoder of a new run."""

    encoder: DialogueEncoder
    spiece: SpieceFile | None
    """The SentencePiece model of its tokenizer, if it has one."""
    num_new_tokens: int


def build_encoder(inputs: Inputs) -> PreparedText:
    """Load the tokenizer of the pretrained model or train one, and add the template's tokens."""
    config, emit = inputs.config, inputs.emit
    origin = config.model.origin
    if isinstance(origin, PretrainedModel):
        begin("loading the tokenizer", emit)
        folder = local_folder(origin.source, origin.revision)
        tokenizer = load_tokenizer(folder, origin.source)
        spiece = _spiece_of(folder, origin.source, emit)
        slow = find_slow_tokenizer(folder, origin.source)
        keep_special_tokens_whole(tokenizer)
    else:
        spiece = SpieceFile(SPIECE_FILE, _spiece(inputs))
        tokenizer = from_sentencepiece(spiece.content)
        if len(tokenizer) < (wanted := config.tokenizer.vocab_size):
            message = (
                f"the vocabulary has {len(tokenizer):,} tokens instead of {wanted:,} "
                "(tokenizer.vocab_size), because there is not enough training text for more"
            )
            emit(Notice(message))
    template = _choose_template(config, tokenizer, emit)
    new = add_special_tokens(tokenizer, template.special_tokens)
    if not isinstance(origin, PretrainedModel):
        tokenizer.bos_token = _first_token(template)
    if tokenizer.eos_token is None:
        tokenizer.eos_token = template.stop_tokens[-1]
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if isinstance(origin, PretrainedModel):
        saved_as = reloadable(tokenizer, folder, emit)
        if saved_as is not tokenizer:
            tokenizer, template = saved_as, _made_alike(template, saved_as)
    encoder = DialogueEncoder(tokenizer, template, max_length=config.dialogue.max_length)
    if isinstance(origin, PretrainedModel) and slow:
        begin("comparing the converted tokenizer with SentencePiece", emit)
        texts = list(_first_texts(inputs))
        emit(Notice(require_same_ids(slow, encoder, texts, folder, origin.source)))
    return PreparedText(encoder, spiece, len(new))


def _choose_template(config: RunConfig, tokenizer: PreTrainedTokenizerBase, emit: Emit) -> Template:
    """Return the template of the config, and say what convo chose."""
    wanted, options = config.dialogue.template, config.dialogue.template_options
    name = chosen_name(wanted, tokenizer)
    if name != wanted:
        has = "a" if name == "native" else "no"
        emit(Notice(f"template: {name}, because the tokenizer has {has} chat template"))
        if name == "turns":
            _note_forerunner(tokenizer, emit)
    if name != "native":
        if options:
            raise UsageError(
                f"dialogue.template_options needs template native, not {name}: only a chat "
                "template of a tokenizer has variables of its own",
                hint="remove dialogue.template_options, or set dialogue.template: native",
            )
        return make_template(name, tokenizer)
    chosen = choose_native(tokenizer, options, keeps_reasoning=config.data.reasoning == "keep")
    for text in chosen.notices:
        emit(Notice(f"template native: {text}"))
    for text in chosen.warnings:
        emit(Notice(text, is_warning=True))
    return chosen.template


def _made_alike(template: Template, tokenizer: PreTrainedTokenizerBase) -> Template:
    """Return the same template for another form of its tokenizer."""
    if isinstance(template, NativeTemplate):
        return NativeTemplate(
            tokenizer, template.chat_template, template.options, template.agreement
        )
    return make_template(template.name, tokenizer)


def _first_token(template: Template) -> str:
    """Return the token before every dialogue; without one the end token, as in GPT-2."""
    first = template.render((Turn("user", "a"), Turn("assistant", "b")))[0]
    return first.text if first.turn == NO_TURN else template.stop_tokens[0]


_FORERUNNERS = (
    ("convmodel", "convmodel", ("<sep>",)),
    ("cls-sep", "multi-turn-chatbot-GPT2", ("[CLS]", "[SEP]")),
)
"""Templates of other programs, and the tokens that their models have."""


def _note_forerunner(tokenizer: PreTrainedTokenizerBase, emit: Emit) -> None:
    """Name the template that a pretrained model may have been trained with, by its tokens."""
    vocabulary = tokenizer.get_vocab()
    for template, program, tokens in _FORERUNNERS:
        if all(token in vocabulary for token in tokens):
            emit(
                Notice(
                    f"the tokenizer has {' and '.join(tokens)}: if {program} trained this model, "
                    f"dialogue.template: {template} fits it"
                )
            )


def _spiece_of(folder: Path, source: str, emit: Emit) -> SpieceFile | None:
    """Return the SentencePiece model of a pretrained model; a damaged one is left out if unused."""
    try:
        return read_spiece(folder, source)
    except ModelError as error:
        if not (folder / "tokenizer.json").is_file():
            raise
        message = f"{error.message}; it is not saved with the run (tokenizer.json is used)"
        emit(Notice(message, is_warning=True))
        return None


def _first_texts(inputs: Inputs) -> Iterator[str]:
    """Yield the first texts of every training file, within bounds for all of them."""
    files = inputs.files.train
    num_left, most = _PROVEN_TEXTS, _PROVEN_CHARACTERS
    for number, file in enumerate(files):
        share, characters = num_left // (len(files) - number), most // (len(files) - number)
        with inputs.read("train", [file]) as dialogues:
            texts = (turn.text for dialogue in dialogues for turn in dialogue.turns)
            for text in islice(texts, share):
                if len(text) > characters:
                    break
                characters, most, num_left = characters - len(text), most - len(text), num_left - 1
                yield text


def _spiece(inputs: Inputs) -> bytes:
    """Train a SentencePiece model on the training dialogues, or open that of an earlier run."""
    config, cache = inputs.config, inputs.cache

    def make(folder: Path) -> None:
        begin("training the tokenizer", inputs.emit)
        with TemporaryFile(dir=folder) as spool:
            with inputs.read("train") as dialogues:
                texts = (turn.text for dialogue in dialogues for turn in dialogue.turns)
                sample = TextSample(spool, texts)
            sizes = [sample.num_sampled, sample.num_characters]
            (folder / SPIECE_FILE).write_bytes(train_on_sample(sample, config.tokenizer))
        (folder / _SIZES_FILE).write_bytes(msgspec.json.encode(sizes))

    key = {
        **inputs.reading("train"),
        "packages": {"sentencepiece": version("sentencepiece")},
        "tokenizer": config.tokenizer.model_dump(),
        "sample": [_SAMPLE_VERSION, MAX_CHARACTERS],
    }

    def open_(folder: Path) -> tuple[bytes, tuple[int, int]]:
        with (
            open(folder / SPIECE_FILE, "rb", opener=cache.opener) as file,
            open(folder / _SIZES_FILE, "rb", opener=cache.opener) as sizes_file,
        ):
            spiece, content = file.read(), sizes_file.read()
        try:
            size = len(from_sentencepiece(spiece))
            sizes = msgspec.json.decode(content, type=tuple[int, int])
        except Exception as error:  # the libraries raise half a dozen types
            raise CheckpointError(f"{folder / SPIECE_FILE}: {error}") from error
        if size > config.tokenizer.vocab_size:
            raise CheckpointError(
                f"{folder / SPIECE_FILE}: {size:,} tokens, more than tokenizer.vocab_size"
            )
        return spiece, sizes

    (spiece, (num_sampled, num_characters)), _ = cache.get("tokenizer", key, make, open_)
    if num_sampled < num_characters:
        message = (
            f"tokenizer: trained on {num_sampled:,} of {num_characters:,} characters, in lines "
            f"drawn at random from {counted(len(inputs.files.train), 'training file')}"
        )
        inputs.emit(Notice(message))
    return spiece
