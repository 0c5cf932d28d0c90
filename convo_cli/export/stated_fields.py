"""Fields of a folder's files that must agree with its dialogue.json, read without loading a model.

Other programs read template, stop tokens and window from these files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from convo_cli.errors import ChangedError, CheckpointError, ConvoError
from convo_cli.export.format import TEMPLATE_FILE
from convo_cli.runs.model_folder import DIALOGUE_FILE
from convo_cli.storage.files import read_linked
from convo_cli.storage.foreign_files import MAX_CONFIG_BYTES
from convo_cli.text.contract import DialogueContract, load_encoder
from convo_cli.text.templates.template import as_before_parts
from convo_cli.wording import quoted

_Stated = TypeVar("_Stated", bound=BaseModel)
_LENGTHS = ("max_position_embeddings", "n_positions")
_MAX_SHOWN = 60


def read_contract(folder: Path) -> DialogueContract | None:
    """Return the contract of a folder; None without one, CheckpointError if it cannot be read."""
    file = folder / DIALOGUE_FILE
    hint = "copy or export the folder again"
    return read_stated(file, DialogueContract, MAX_CONFIG_BYTES, "cannot be read", hint)


def read_stated(
    file: Path, kind: type[_Stated], max_bytes: int, fault: str, hint: str
) -> _Stated | None:
    """Return what a JSON file states; None without the file.

    Raises CheckpointError with ``fault`` and ``hint`` for a file of another form, PermissionError
    for one that this user may not read.
    """
    try:
        return kind.model_validate_json(read_linked(file, max_bytes))
    except FileNotFoundError:
        return None
    except PermissionError:
        raise
    except (ValidationError, OSError) as error:
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.strerror
        raise CheckpointError(f"{file}: {fault} ({first})", hint=hint) from error


def differing_fields(folder: Path, contract: DialogueContract) -> Iterator[str]:
    """Yield a sentence for each field that differs from dialogue.json; absent files are skipped."""
    yield from differing_texts(folder, contract)
    if (folder / "tokenizer.json").is_file():
        try:
            load_encoder(folder)
        except ChangedError as error:
            yield error.message.removeprefix(f"{folder}: ")
        except ConvoError as error:
            yield error.message.removeprefix(f"{folder}/")


def differing_texts(folder: Path, contract: DialogueContract) -> Iterator[str]:
    """Yield the differences in files that are read without loading a tokenizer."""
    for name, check in _CHECKS.items():
        file = folder / name
        try:
            content = read_linked(file, MAX_CONFIG_BYTES).decode()
            yield from (f"{name}: {one}" for one in check(content, contract))
        except FileNotFoundError:
            continue
        except PermissionError:
            raise
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            yield f"{name}: cannot be read ({quoted(str(error), 200)[1:-1]})"


def _template(content: str, contract: DialogueContract) -> Iterator[str]:
    if content not in (contract.chat_template, as_before_parts(contract.chat_template)):
        yield f"another chat template than that of {DIALOGUE_FILE}"


def _generation(content: str, contract: DialogueContract) -> Iterator[str]:
    values = json.loads(content)
    stop, wanted = _as_ids(values.get("eos_token_id")), list(contract.stop_ids)
    if sorted(stop) != sorted(wanted):
        yield f"eos_token_id is {_shown(stop)}, but the stop ids are {_shown(wanted)}"
    pad = values.get("pad_token_id")
    if pad is not None and pad != contract.pad_id:
        yield f"pad_token_id is {_shown(pad)}, but it is {contract.pad_id} in {DIALOGUE_FILE}"


def _config(content: str, contract: DialogueContract) -> Iterator[str]:
    values = json.loads(content)
    for name in _LENGTHS:
        length = values.get(name)
        if isinstance(length, int) and length < contract.max_length:
            yield f"{name} is {length}, but dialogues have up to {contract.max_length} tokens"
    size = values.get("vocab_size")
    if isinstance(size, int) and size <= max(contract.stop_ids):
        yield f"vocab_size is {size}, but a stop token has the id {max(contract.stop_ids)}"


def _tokenizer(content: str, contract: DialogueContract) -> Iterator[str]:
    values: Mapping[str, Any] = json.loads(content)
    if isinstance(values.get("chat_template"), str):
        yield from (f"chat_template: {one}" for one in _template(values["chat_template"], contract))


_CHECKS: Mapping[str, Callable[[str, DialogueContract], Iterator[str]]] = {
    TEMPLATE_FILE: _template,
    "generation_config.json": _generation,
    "config.json": _config,
    "tokenizer_config.json": _tokenizer,
}


def _as_ids(value: object) -> list[int]:
    if isinstance(value, int):
        return [value]
    return [one for one in value if isinstance(one, int)] if isinstance(value, list) else []


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"
