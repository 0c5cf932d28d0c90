"""Loading of pretrained tokenizers, each after a trial in the bounded process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from convo_cli.errors import ModelError, first_line
from convo_cli.storage.foreign_files import TEXT_SUFFIXES
from convo_cli.text.bounded import client
from convo_cli.text.bounded.process import TRY_TOKENIZER, trial_limits
from convo_cli.text.spiece.slow_tokenizer import (
    NO_CONVERSION,
    SlowTokenizer,
    convert,
    find_slow_tokenizer,
)
from convo_cli.text.tokenizers.hub import local_folder
from convo_cli.text.tokenizers.probes import PROBES
from convo_cli.text.tokenizers.vocabulary import settle_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_ADDED_TOKENS = 2**16


def load_pretrained_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a folder or hub id; ModelError if it is unreadable or not fast."""
    return load_tokenizer(local_folder(source), source)


def load_tokenizer(folder: Path, source: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a folder that `require_harmless` has accepted, after a trial.

    A run directory may come from anyone, even with a valid manifest. Only a tokenizer that this
    process has just written is loaded without a trial, by `open_tokenizer`.
    """
    require_within_limits(TRY_TOKENIZER, folder, source)
    return open_tokenizer(folder, source)


def require_within_limits(task: bytes, folder: Path, source: str) -> None:
    """Raise ModelError if a folder's tokenizer or config fails its trial or exceeds the limits."""
    try:
        str(folder.absolute()).encode()
    except UnicodeEncodeError:
        raise ModelError(
            f"{source}: the path is not UTF-8, so the tokenizers library cannot open it",
            hint="rename the folder",
        ) from None
    num_bytes = sum(
        file.stat().st_size
        for file in folder.iterdir()
        if file.is_file() and file.suffix in TEXT_SUFFIXES
    )
    request = json.dumps([str(folder.absolute()), source, num_bytes]).encode()
    what = "tokenizer" if task == TRY_TOKENIZER else "config.json"
    try:
        refused = json.loads(client.ask(task, request))
    except client.EndedError as end:
        raise ModelError(
            f"{source}: its {what} {end.reason(trial_limits(num_bytes))}",
            hint="take the model from another source",
        ) from None
    if refused:
        message, hint = refused
        raise ModelError(message, hint=hint or None)


def open_tokenizer(folder: Path, source: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a folder without a trial; ModelError names it as ``source``."""
    from transformers import AutoTokenizer

    slow = find_slow_tokenizer(folder, source)
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # transformers raises half a dozen types
        raise ModelError(
            f"{source}: no readable tokenizer ({_unreadable(folder, error, slow)})",
            hint="the folder needs tokenizer.json (or the files of a slow tokenizer) beside "
            "config.json",
        ) from error
    if slow is not None:
        tokenizer = convert(slow, tokenizer, folder, source)
    if not getattr(tokenizer, "is_fast", False):  # RAG has two tokenizers and lacks this attribute
        raise ModelError(
            f"{source}: its tokenizer {type(tokenizer).__name__} has no fast form",
            hint=NO_CONVERSION,
        )
    if len(tokenizer) < 256 and slow is None:
        raise ModelError(
            f"{source}: the vocabulary of its tokenizer was not found (size: {len(tokenizer)})",
            hint="the folder needs tokenizer.json; without it, transformers silently uses an empty "
            "vocabulary",
        )
    if (num_added := len(tokenizer.added_tokens_decoder)) > MAX_ADDED_TOKENS:
        raise ModelError(
            f"{source}: its tokenizer has {num_added:,} added tokens, but at most "
            f"{MAX_ADDED_TOKENS:,} are allowed",
            hint="in tokenizer.json, move ordinary tokens from added_tokens to model.vocab",
        )
    tokenizer.backend_tokenizer.no_padding()  # tokenizer.json may ask for a billion ids
    tokenizer.backend_tokenizer.no_truncation()
    settle_ids(tokenizer, _stated_ids(folder / "tokenizer.json"), source)
    try:
        tokenizer.backend_tokenizer.encode_batch_fast(list(PROBES))
    except Exception as error:  # the tokenizers library has no exception type for it
        raise ModelError(
            f"{source}: its tokenizer fails on text outside its vocabulary ({first_line(error)})",
            hint="in tokenizer.json, set model.unk_token to a token of the vocabulary",
        ) from error
    loaded: PreTrainedTokenizerBase = tokenizer
    return loaded


class _AddedToken(msgspec.Struct):
    id: int
    content: str


class _TokenizerFile(msgspec.Struct):
    added_tokens: list[_AddedToken] = []


def _stated_ids(file: Path) -> dict[str, int]:
    """Return the ids of the added tokens in tokenizer.json; none without the file."""
    try:
        stated = msgspec.json.decode(file.read_bytes(), type=_TokenizerFile)
    except (FileNotFoundError, msgspec.DecodeError):
        return {}
    return {token.content: token.id for token in stated.added_tokens}


def _unreadable(folder: Path, error: Exception, slow: SlowTokenizer | None) -> str:
    """Describe why a tokenizer cannot be loaded, with the file if that is the reason."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        # The text of a failed conversion lists Python classes, or nothing.
        more = f", and transformers cannot load {slow.file.name} without it" if slow else ""
        return f"the folder has no tokenizer.json{more}"
    try:
        json.loads(file.read_bytes())
    except (ValueError, RecursionError) as damage:
        return f"tokenizer.json is damaged: {first_line(damage)}"
    return first_line(error)
