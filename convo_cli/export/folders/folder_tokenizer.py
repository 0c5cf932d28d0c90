"""The tokenizer of an exported folder in transformers, and its stop ids.

The bounded process can open it alone, before the folder has weights: this module has `about` and
`open_runtime`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from convo_cli.export.format import About

_GENERATION_FILE = "generation_config.json"


def about() -> About:
    """Return what opens a tokenizer."""
    return About(summary="a tokenizer alone", usage="", runs_with=("transformers",))


def open_runtime(folder: Path, base: Path | None) -> FolderTokenizer:
    """Open the tokenizer of a folder."""
    return FolderTokenizer(folder)


class FolderTokenizer:
    """A tokenizer that transformers opens, as a program does that knows only the folder."""

    name = "transformers"

    def __init__(self, folder: Path) -> None:
        import transformers

        self.version = f"transformers {transformers.__version__}"
        self._folder = folder
        self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False
        )

    @property
    def stop_ids(self) -> Sequence[int]:
        """Return the ids that end a reply by generation_config.json; none without that file."""
        try:
            stated = json.loads((self._folder / _GENERATION_FILE).read_bytes()).get("eos_token_id")
        except FileNotFoundError:
            return []
        return [stated] if isinstance(stated, int) else list(stated or ())

    def text_ids(self, text: str) -> list[int]:
        """Return the ids of a text without tokens around it."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def prompt_ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Return the ids of a prompt by the chat template."""
        found = self._tokenizer.apply_chat_template(
            [dict(message) for message in messages], add_generation_prompt=True, return_dict=True
        )
        ids: list[int] = found["input_ids"]
        return ids
