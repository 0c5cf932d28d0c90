"""What no file of a model folder may be, whoever made the folder: a pipe, absurdly large, or a way to other files.

Weights are safetensors and all else is JSON, so nothing here is code. Three ways around that are closed: an index of
weights may name a pickle, or a file outside of the folder; a config may name a kernel, which is code on a hub.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from convo_cli.errors import ModelError

MAX_TEXT_BYTES = 2**28
"""Of a file that is read at once; the largest tokenizer.json known is an eighth of it."""
_TEXTS = {".json", ".jinja", ".model", ".txt"}
_INDEX = "model.safetensors.index.json"


def require_harmless(folder: Path) -> None:
    """Raise ModelError naming the first file or entry that no real model has."""
    for file in sorted(folder.iterdir()):
        if not file.exists() or file.is_dir():
            continue
        if not file.is_file():
            raise ModelError(f"{file}: not a regular file", hint="copy the model again")
        size = file.stat().st_size
        if file.suffix in _TEXTS and size > MAX_TEXT_BYTES:
            raise ModelError(
                f"{file}: {size:,} bytes, and {MAX_TEXT_BYTES:,} are more than any such file has",
                hint="take the model from another source",
            )
    for name in _shards(folder / _INDEX):
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelError(
                f"{folder / _INDEX}: names {str(name)[:100]!r} as a file of weights, which is no safetensors file "
                "beside it",
                hint="take the model from another source",
            )
    for key, value in _entries(_read(folder / "config.json")):
        if key.endswith("_implementation") and isinstance(value, str) and "/" in value:
            raise ModelError(
                f"{folder / 'config.json'}: {key[:100]} names {value[:100]!r}, which would be code from a hub",
                hint="remove that entry where you trust the model",
            )


def _shards(index: Path) -> list[object]:
    values = _read(index)
    shards = values.get("weight_map") if isinstance(values, dict) else None
    return list(shards.values()) if isinstance(shards, dict) else []


def _entries(values: Any) -> Iterator[tuple[str, object]]:
    """Every key of a JSON value at any depth, with its value."""
    waiting = [values]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from value.items()
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _read(file: Path) -> Any:
    """The file's JSON; None where there is none, of which whoever needs it will complain."""
    try:
        return json.loads(file.read_bytes())
    except RecursionError:
        raise ModelError(f"{file}: nested too deeply", hint="copy the model again") from None
    except (OSError, ValueError):
        return None
