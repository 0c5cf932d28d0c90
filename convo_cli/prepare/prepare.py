"""Preparation of the data before step 1: dialogue files become an encoder and token stores.

The tokenizer of a from-scratch run and the encoded data are cached by content (see `cache`): a
second run on the same data, or a resumed run, opens the files of the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from convo_cli import __version__
from convo_cli.config.schema import PretrainedModel, RunConfig, ScratchConfig
from convo_cli.data.checks.problem_tally import MAX_PROBLEMS, ProblemGroup
from convo_cli.data.omissions import Omissions, report_omissions
from convo_cli.data.unchanged import read_unchanged
from convo_cli.errors import CheckpointError, DataError
from convo_cli.events import Emit, Notice, begin
from convo_cli.prepare.earlier import REFUSED, TOKENS, find_earlier
from convo_cli.prepare.encode import encode_files, trains_on_users
from convo_cli.prepare.inputs import Inputs
from convo_cli.prepare.preflight import (
    PreflightError,
    Refusals,
    advice_for_long_turns,
    warn_of_leaks,
)
from convo_cli.prepare.stored import open_stored, write_omissions
from convo_cli.runs.provenance.data_files import DataFile
from convo_cli.text.contract import contract_of
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.readback import reloadable
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
from convo_cli.text.tokenizers.vocabulary import num_ids
from convo_cli.tokens.store import TokenStore, write

_NAMED = 5  # dialogues left out, in a notice


@dataclass(frozen=True)
class PreparedText:
    """The encoder of a new run; ``spiece`` is the SentencePiece model of its tokenizer, if it has
    one.
    """

    encoder: DialogueEncoder
    spiece: bytes | None
    num_new_tokens: int


@dataclass(frozen=True)
class PreparedData:
    """The token stores that a run is trained and evaluated on."""

    train: TokenStore
    validation: TokenStore | None


def build_encoder(inputs: Inputs) -> PreparedText:
    """Load the pretrained model's tokenizer or train one on the training dialogues, and add the
    template's tokens.
    """
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
        if len(tokenizer) < config.tokenizer.vocab_size:
            emit(
                Notice(
                    f"the vocabulary has {len(tokenizer)} tokens, not "
                    f"{config.tokenizer.vocab_size} "
                    "(tokenizer.vocab_size): there is not enough training text for more"
                )
            )
    template = make_template(config.dialogue.template, tokenizer)
    if template.name != config.dialogue.template:
        emit(Notice(f"dialogue.template: auto chooses {template.name}"))
    new = add_special_tokens(tokenizer, template.special_tokens)
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


def prepare_data(
    inputs: Inputs, encoder: DialogueEncoder, *, max_problems: int = MAX_PROBLEMS
) -> PreparedData:
    """Run the pre-flight: encode the training and validation data, or open earlier stores of the
    same data.

    Raises PreflightError if dialogues cannot be trained on, with the first ``max_problems`` problems
    of each code, and ModelError if transformers renders the first dialogues differently from
    training.
    """
    config = inputs.config
    train = validation = None
    refused: list[ProblemGroup] = []
    needed = 0
    try:
        train = _store(inputs, encoder, inputs.files.train, "training", max_problems=max_problems)
    except PreflightError as error:
        refused, needed = [*error.groups], error.needed
    try:
        if inputs.files.validation:
            max_dialogues = config.evaluation.max_dialogues
            validation = _store(
                inputs, encoder, inputs.files.validation, "validation",
                max_dialogues=max_dialogues, max_problems=max_problems,
            )  # fmt: skip
    except PreflightError as error:
        refused, needed = [*refused, *error.groups], max(needed, error.needed)
    if train is None or refused:
        if needed:
            hint = advice_for_long_turns(needed, _context(config), config.dialogue.long_turns)
            refused = [
                replace(group, hint=hint) if group.code == "turn-too-long" else group
                for group in refused
            ]
        raise PreflightError(refused, needed)
    if validation is not None:
        warn_of_leaks(train, validation, (config.data.train, config.data.validation), inputs.emit)
    return PreparedData(train, validation)


def _store(
    inputs: Inputs,
    encoder: DialogueEncoder,
    files: Sequence[DataFile],
    what: str,
    *,
    max_dialogues: int | None = None,
    max_problems: int,
) -> TokenStore:
    """Encode the files or open an earlier store of them; PreflightError if dialogues cannot be
    trained on.
    """
    config, cache, emit = inputs.config, inputs.cache, inputs.emit
    contract = contract_of(encoder).model_dump(exclude={"max_length"})
    key = {
        **inputs.reading(files),
        "packages": {
            "convo": __version__,
            **{name: version(name) for name in ("tokenizers", "transformers")},
        },
        "contract": contract,
        "train_on": config.dialogue.train_on,
        "learns_from_users": trains_on_users(config),
        "max_dialogues": max_dialogues,
    }
    variant = {"max_length": encoder.max_length, "long_turns": config.dialogue.long_turns}
    size = num_ids(encoder.tokenizer)

    def make(folder: Path) -> None:
        refusals = Refusals(max_problems)
        omissions = [Omissions() for _ in files]
        chunks = encode_files(
            inputs, files, encoder, refusals, omissions=omissions,
            stage=f"encoding {what} data", max_dialogues=max_dialogues, total=_num_lines(files, max_dialogues),
            earlier=find_earlier(cache, key, num_ids=size, num_files=len(files)),
        )  # fmt: skip
        write(chunks, folder)
        write_omissions(omissions, folder)
        if groups := refusals.groups():
            if refusals.needed:
                cache.keep(REFUSED, key, variant, folder)
            raise PreflightError(groups, refusals.needed)

    open_ = partial(
        open_stored, cache=cache, num_ids=size, max_length=encoder.max_length, num_files=len(files)
    )
    (opened, omissions), was_there = cache.get(TOKENS, key, make, open_, variant)
    if was_there:
        emit(Notice(f"the {what} data was encoded by an earlier run; using its tokens"))
    report_omissions(omissions, [file.path for file in files], config.data.reasoning, emit)
    _report_left_out(opened, what, files, encoder.max_length, emit)
    return opened


def _report_left_out(
    store: TokenStore, what: str, files: Sequence[DataFile], max_length: int, emit: Emit
) -> None:
    """Name the dialogues that `dialogue.long_turns: drop` left out; DataError if none is left."""
    left_out = np.flatnonzero(store.dialogues["num_tokens"] == 0)
    if not len(left_out):
        return
    paths = [file.path for file in files]
    named = ", ".join(store.where(int(index), paths) for index in left_out[:_NAMED])
    message = (
        f"{len(left_out):,} of {len(store.dialogues):,} {what} dialogues are left out, because a "
        "turn is too long for "
        f"dialogue.max_length {max_length}: {named}{', …' if len(left_out) > _NAMED else ''}"
    )
    if not store.num_dialogues:
        raise DataError(
            message, hint="raise dialogue.max_length, or set dialogue.long_turns: split"
        )
    emit(Notice(message, is_warning=True))


def _context(config: RunConfig) -> int | None:
    """Return the longest sequence of the model, if it is known before the model is loaded."""
    origin = config.model.origin
    if isinstance(origin, ScratchConfig):
        return origin.context
    from convo_cli.model.context import read_context_length

    return read_context_length(origin.source, origin.revision)


def _spiece(inputs: Inputs) -> bytes:
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


def _num_lines(files: Sequence[DataFile], most: int | None) -> int | None:
    """Estimate the number of dialogues; None for compressed files."""
    if not all(file.num_lines for file in files):
        return None
    total = sum(file.num_lines for file in files)
    return total if most is None else min(total, most)
