"""Checks of foreign model folders: no pipes, huge files, code, or way to files outside the folder.

Weights are safetensors and everything else is JSON, so no file is code. The checks close the ways
around that: links and entries that lead out of the folder, an index of weights that names a pickle,
entries that replace a checked file with another one, and kernels, which are code from a hub.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from convo_cli.errors import ModelError
from convo_cli.wording import on_one_line, quoted

MAX_TEXT_BYTES = 2**28
"""Largest file that is read at once, 256 MiB; the largest known tokenizer.json has 32 MiB."""
MAX_CONFIG_BYTES = 2**24
MAX_SPIECE_BYTES = 2**25
"""Largest SentencePiece model, 32 MiB; that of XLM-V, with 900,000 pieces, has 18 MiB."""
MAX_INDEX_BYTES = 2**25
"""Largest index of weights; 100,000 tensors take a third of it."""
TEXT_SUFFIXES = {".json", ".jinja", ".model", ".txt", ".tiktoken"}
"""Suffixes of files that are read at once."""
INDEX = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_TENSORS = "adapter_model.safetensors"
ADAPTER_BASE = "base_model.json"
"""The base of an adapter, in a checkpoint of convo."""
_SHARD_OF_A_RANK = re.compile(r"shard-\d+-model-\d+-of-\d+\.safetensors")
"""Names of files that transformers prefers to model.safetensors."""
_TEMPLATES = "additional_chat_templates"

_CONFIGS = (
    "config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
)
_LIMITS = {INDEX: MAX_INDEX_BYTES, **dict.fromkeys(_CONFIGS, MAX_CONFIG_BYTES)}
_REPLACES_A_FILE = {
    "configuration_files",
    "transformers_weights",
    "fast_tokenizer_files",
    "gguf_file",
    "init_inputs",
}
"""Keys that make transformers read another file instead of the usual one."""
_CONTENT_OR_FILE = {"vocab", "merges", "entity_vocab"}
"""Keys that hold content, or the path of a file if the value is a string."""
_LOCAL_PATHS = {"name_or_path", "_name_or_path", "tokenizer_file", "special_tokens_map_file"}
"""Keys into which some versions of transformers wrote local paths."""
_NEVER_OPENED = _LOCAL_PATHS | {"chat_template", "content"}
"""Keys whose values transformers never opens."""
_BUILT_IN = {"eager", "sdpa", "flex_attention", "grouped_mm", "batched_mm"}
"""Implementations of attention and experts that need no code from elsewhere."""

CODE = {"auto_map", "custom_pipelines", "custom_generate"}
"""Keys for classes and functions in a folder or on a hub; convo never imports them.

Other programs may.
"""


def require_harmless(folder: Path) -> None:
    """Raise ModelError naming the first file or entry that no real model has."""
    templates = folder / _TEMPLATES
    entries = [*folder.iterdir(), *(templates.iterdir() if templates.is_dir() else ())]
    for file in sorted(entries):
        shown = on_one_line(str(file))
        if not _is_within(folder, file):
            raise ModelError(
                f"{shown}: a link to a file outside the folder",
                hint="replace the link with the file itself",
            )
        if not file.exists() or file.is_dir():
            continue
        if not file.is_file():
            raise ModelError(f"{shown}: not a regular file", hint="copy the model again")
        most = MAX_SPIECE_BYTES if file.suffix == ".model" else MAX_TEXT_BYTES
        size, limit = file.stat().st_size, _LIMITS.get(file.name, most)
        if file.suffix in TEXT_SUFFIXES and size > limit:
            raise _distrust(f"{shown}: {size:,} bytes, but such a file may have at most {limit:,}")
        if _SHARD_OF_A_RANK.fullmatch(file.name):
            raise ModelError(
                f"{file}: a shard of a distributed checkpoint",
                hint="save the model as model.safetensors",
            )
    for name in shard_names(folder / INDEX):
        if (
            not isinstance(name, str)
            or Path(name).name != name
            or not name.endswith(".safetensors")
        ):
            raise _distrust(
                f"{folder / INDEX}: lists {_short(name)} as a weight file, but it is not a "
                "safetensors file in the folder"
            )
    for file in (folder / name for name in _CONFIGS):
        entries_of_file = list(json_entries(_read(file)))
        _require_no_kernel(file, entries_of_file)
        _require_no_other_file(file, entries_of_file)


def remove_foreign_entries(folder: Path) -> None:
    """Remove references to code and to the author's local paths from the written configs."""
    foreign = CODE | _LOCAL_PATHS | {"chat_template"}  # convo writes chat_template.jinja
    for file in (folder / name for name in _CONFIGS):
        values = _read(file)
        cleaned = without_keys(values, foreign)
        if cleaned != values:
            text = json.dumps(cleaned, indent=2, sort_keys=True, ensure_ascii=False)
            file.write_text(text + "\n", encoding="utf-8")


def _require_no_kernel(file: Path, entries: Iterable[tuple[str, object]]) -> None:
    for key, value in entries:
        if "_implementation" not in key:
            continue
        for text in _strings(value):
            if "/" in text or (("attn" in key or "experts" in key) and text not in _BUILT_IN):
                raise ModelError(
                    f"{file}: {key[:100]} is {_short(text)}, which would be code from a hub",
                    hint="if you trust the model, remove that entry; convo chooses the "
                    "implementation itself",
                )


def _require_no_other_file(file: Path, entries: Iterable[tuple[str, object]]) -> None:
    # transformers reads special_tokens_map.json after it has set the paths, so an entry there
    # replaces one of them.
    never_opened = _NEVER_OPENED - (
        {"tokenizer_file"} if file.name == "special_tokens_map.json" else set()
    )
    for key, value in entries:
        is_named = (key in _REPLACES_A_FILE and bool(value)) or (
            key in _CONTENT_OR_FILE and isinstance(value, str)
        )
        texts = (value,) if isinstance(value, str) else value if isinstance(value, list) else ()
        if key not in never_opened and not key.endswith(("_token", "_tokens")):
            is_named = is_named or any(
                isinstance(text, str) and _leads_outside(file.parent, text) for text in texts
            )
        if is_named:
            raise ModelError(
                f"{file}: {key[:100]} is {_short(value)}, but an entry may not refer to a file",
                hint="if you trust the model, remove that entry",
            )


def _is_within(folder: Path, path: Path) -> bool:
    """Return whether a path leads into the folder, or from a hub cache's snapshot to its blobs."""
    try:
        real, target = folder.resolve(), path.resolve()
    except (OSError, RuntimeError):  # a cycle of links
        return False
    blobs = real.parent.parent / "blobs"
    return target.is_relative_to(real) or (
        real.parent.name == "snapshots" and target.is_relative_to(blobs)
    )


def _leads_outside(folder: Path, text: str) -> bool:
    """Return whether a text is the path of a file outside the folder.

    The path may be relative to the folder or to the working folder.
    """
    for path in (Path(text), folder / text):
        try:
            if path.exists() and not path.is_dir() and not _is_within(folder, path):
                return True
        except (OSError, ValueError):  # too long for a name, or with a NUL in it
            continue
    return False


def _distrust(message: str) -> ModelError:
    return ModelError(message, hint="take the model from another source")


def _short(value: object) -> str:
    return quoted(value if isinstance(value, str) else json.dumps(value), 100)


def shard_names(index: Path) -> list[object]:
    """Return the file names in an index of weights."""
    values = _read(index)
    shards = values.get("weight_map") if isinstance(values, dict) else None
    return list(shards.values()) if isinstance(shards, dict) else []


def json_entries(values: Any) -> Iterator[tuple[str, object]]:
    """Yield every key of a JSON value at any depth, with its value."""
    waiting = [values]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from value.items()
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _strings(value: object) -> Iterator[str]:
    """Yield every string of a JSON value at any depth, but no keys."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, (dict, list)):
            waiting += value.values() if isinstance(value, dict) else value


def without_keys(values: Any, keys: set[str]) -> Any:
    """Return a JSON value without these keys, at any depth."""
    if isinstance(values, dict):
        return {key: without_keys(value, keys) for key, value in values.items() if key not in keys}
    return [without_keys(value, keys) for value in values] if isinstance(values, list) else values


def _read(file: Path) -> Any:
    """Return the JSON of a file; None if it cannot be read, which its user reports."""
    try:
        return json.loads(file.read_bytes())
    except RecursionError:
        raise ModelError(f"{file}: nested too deeply", hint="copy the model again") from None
    except (OSError, ValueError):
        return None
