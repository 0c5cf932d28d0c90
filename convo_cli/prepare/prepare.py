"""Preparation of the data before step 1: dialogue files become an encoder and token stores.

The tokenizer of a from-scratch run and the encoded data are cached by content (see `cache`): a
second run on the same data, or a resumed run, opens the files of the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TypedDict

import numpy as np

from convo_cli import __version__
from convo_cli.config.schema import DATA_SETS, DataConfig, RunConfig, ScratchConfig
from convo_cli.data.checks.problem_tally import MAX_PROBLEMS, ProblemGroup
from convo_cli.data.held_out.validation_split import is_by_chance
from convo_cli.data.omissions import Omissions, report_omissions
from convo_cli.errors import DataError
from convo_cli.events import Emit, Notice, TokenCounts
from convo_cli.prepare.cache import Seals
from convo_cli.prepare.encode import encode_files, trains_on_users
from convo_cli.prepare.inputs import Inputs
from convo_cli.prepare.preflight import (
    SET_NAMES,
    Leak,
    PreflightError,
    Refusals,
    advice_for_long_turns,
    count_tokens,
    find_leaks,
    report_replies,
)
from convo_cli.prepare.stored import (
    REFUSED,
    TOKENS,
    UnfinishedStore,
    find_earlier,
    open_stored,
    write_omissions,
)
from convo_cli.runs.provenance.data_files import DataFile
from convo_cli.text.contract import contract_of
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.tokenizers.vocabulary import num_ids
from convo_cli.tokens.store import TokenStore
from convo_cli.tokens.store_check import require_valid_store
from convo_cli.wording import counted

_NAMED = 5  # dialogues left out, in a notice


class SetCounts(TypedDict):
    """The counts of each data set; None for a set without files."""

    training: TokenCounts
    validation: TokenCounts | None
    test: TokenCounts | None


@dataclass(frozen=True)
class PreparedData:
    """The token stores that a run is trained and scored on."""

    train: TokenStore
    validation: TokenStore | None
    test: TokenStore | None
    leaks: tuple[Leak, ...]
    """Dialogues that a data set shares with an earlier one, which are also warned about."""
    num_held_back: int = 0
    """Dialogues of the training files that a split holds back for validation."""

    def counts(self, max_length: int) -> SetCounts:
        """Return the counts of each data set for the table."""

        def of(store: TokenStore | None) -> TokenCounts | None:
            return None if store is None else count_tokens(store, max_length)

        training = replace(count_tokens(self.train, max_length), num_held_back=self.num_held_back)
        return {"training": training, "validation": of(self.validation), "test": of(self.test)}


def prepare_data(
    inputs: Inputs, encoder: DialogueEncoder, *, max_problems: int = MAX_PROBLEMS
) -> PreparedData:
    """Run the pre-flight: encode the files of each data set, or open stores of the same data.

    PreflightError, with the first ``max_problems`` problems of each code, if dialogues cannot be
    trained on. ModelError if transformers renders the first dialogues differently from training.
    """
    config = inputs.config
    stores: dict[str, TokenStore] = {}
    num_held_back = 0
    refused: list[ProblemGroup] = []
    needed = 0
    for name in DATA_SETS:
        limit = config.evaluation.max_dialogues if name == "validation" else None
        try:
            if inputs.files_of(name):
                stores[name], omissions = _store(
                    inputs, encoder, name, max_dialogues=limit, max_problems=max_problems
                )
                num_held_back += sum(one.num_held_back for one in omissions)
        except PreflightError as error:
            refused, needed = [*refused, *error.groups], max(needed, error.needed)
    if refused:
        if needed:
            hint = advice_for_long_turns(needed, _context(config), config.dialogue.long_turns)
            refused = [
                replace(group, hint=hint) if group.code == "turn-too-long" else group
                for group in refused
            ]
        raise PreflightError(refused, needed)
    _report_split(num_held_back, len(stores["train"].dialogues), config.data, inputs.emit)
    paths = {name: [file.path for file in inputs.files_of(name)] for name in stores}
    leaks = tuple(find_leaks(stores, paths))
    for leak in leaks:
        inputs.emit(Notice(f"{leak.message} {leak.examples}".rstrip(), is_warning=True))
    return PreparedData(
        stores["train"], stores.get("validation"), stores.get("test"), leaks, num_held_back
    )


def _report_split(num_held_back: int, num_train: int, data: DataConfig, emit: Emit) -> None:
    """Emit the true share of a validation split, as a warning if chance does not explain it."""
    if data.validation_split is None:
        return
    num = num_held_back + num_train
    message = (
        f"held back {num_held_back:,} of {counted(num, 'dialogue')} for validation "
        f"({100 * num_held_back / num:.3g} %; data.validation_split: {data.validation_split:g})"
    )
    is_expected = is_by_chance(num_held_back, num, data.validation_split)
    if not is_expected:
        message += ", because many dialogues begin with the same two turns and stay together"
    emit(Notice(message, is_warning=not is_expected))


def _store(
    inputs: Inputs,
    encoder: DialogueEncoder,
    data_set: str,
    *,
    max_dialogues: int | None = None,
    max_problems: int,
) -> tuple[TokenStore, Sequence[Omissions]]:
    """Encode a data set, or open an earlier store of it."""
    config, cache, emit = inputs.config, inputs.cache, inputs.emit
    files, what = inputs.files_of(data_set), SET_NAMES[data_set]
    contract = contract_of(encoder).model_dump(exclude={"max_length"})
    key = {
        **inputs.reading(data_set),
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
    check = partial(
        require_valid_store, num_ids=size, max_length=encoder.max_length, num_files=len(files)
    )

    def make(folder: Path) -> Seals:
        refusals, home = Refusals(max_problems), cache.unfinished(TOKENS, key, variant)
        omissions = [Omissions() for _ in files]
        with ExitStack() as stack:
            unfinished = UnfinishedStore(folder, home, cache, files, check, emit)
            stack.enter_context(unfinished)
            chunks = encode_files(
                inputs,
                data_set,
                encoder,
                refusals,
                omissions=omissions,
                stage=f"encoding {what} data",
                max_dialogues=max_dialogues,
                total=_num_lines(inputs, data_set, max_dialogues),
                earlier=find_earlier(cache, key, num_ids=size, num_files=len(files)),
                encoded=unfinished.store,
                opened=unfinished.opened,
            )
            for chunk in stack.enter_context(closing(chunks)):
                unfinished.append(chunk)
            seals = unfinished.finish(folder)
            write_omissions(omissions, folder)
            if groups := refusals.groups():
                if refusals.needed:
                    cache.keep(REFUSED, key, variant, folder)
                unfinished.discard()
                raise PreflightError(groups, refusals.needed)
        return seals

    open_ = partial(open_stored, cache=cache, check=check, num_files=len(files))
    (opened, omissions), was_there = cache.get(TOKENS, key, make, open_, variant)
    if was_there:
        emit(Notice(f"the {what} data was encoded earlier; reusing its tokens"))
    report_omissions(omissions, [file.path for file in files], config.data.reasoning, emit)
    _report_left_out(opened, what, files, encoder.max_length, emit)
    report_replies(opened, what, encoder.max_length, emit)
    return opened, omissions


def _report_left_out(
    store: TokenStore, what: str, files: Sequence[DataFile], max_length: int, emit: Emit
) -> None:
    """Name the dialogues that `dialogue.long_turns: drop` left out; DataError if none is left."""
    left_out = np.flatnonzero(store.dialogues["num_tokens"] == 0)
    if not len(left_out):
        return
    paths = [file.path for file in files]
    named = ", ".join(store.where(int(index), paths) for index in left_out[:_NAMED])
    more = ", …" if len(left_out) > _NAMED else ""
    message = (
        f"left out {len(left_out):,} of {len(store.dialogues):,} {what} dialogues, because a "
        f"turn is too long for dialogue.max_length {max_length}: {named}{more}"
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


def _num_lines(inputs: Inputs, data_set: str, most: int | None) -> int | None:
    """Estimate the number of dialogues; None for compressed files and held-back dialogues."""
    files = inputs.files_of(data_set)
    if not all(file.num_lines for file in files) or not getattr(inputs.files, data_set):
        return None
    total = sum(file.num_lines for file in files)
    return total if most is None else min(total, most)
